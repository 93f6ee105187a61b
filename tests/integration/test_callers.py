"""Who may call what, and how callers steer: keys, allowed targets, paths and the Penstock-* headers."""

import pytest
from harness import KEY, configuration, key_hash, upstream
from raw_http import Upstream, connect

FOR_ALL = {"content-type", "penstock-call", "penstock-provider", "penstock-waited", "penstock-cost"}


def request(path):
    """For the provider, with a path that a client library would tidy up."""
    return f"GET /p/mock{path} HTTP/1.1\r\nHost: g\r\nX-Penstock-Key: {KEY}\r\n\r\n".encode()


def check_problem(answer, status, reason, error_type):
    """One shape for all refusals: RFC 9457, and what the SDKs of OpenAI look for."""
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Penstock-Reason"] == reason
    problem = answer.json()
    assert {"type", "title", "status", "detail", "reason", "error"} <= problem.keys()
    assert (problem["status"], problem["reason"]) == (status, reason)
    assert problem["error"] == {
        "message": problem["detail"],
        "type": error_type,
        "param": None,
        "code": reason,
    }
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "key", [None, "pk_unknown", "pk_revoked", "pk_expired", "sk-not-ours", "pk_" + "a" * 300]
)
def test_keys_that_are_not_known_revoked_or_expired_get_one_answer(start_gateway, mock, key):
    keys = {
        "revoked": {"consumer": "tester", "hash": key_hash("pk_revoked"), "revoked": True},
        "expired": {"consumer": "tester", "hash": key_hash("pk_expired"), "expires": "2020-01-01T00:00:00Z"},
        "later": {"consumer": "tester", "hash": key_hash("pk_later"), "expires": "2100-01-01"},
    }
    gateway = start_gateway(configuration(mock, keys=keys))
    with gateway.new_client(key) as client:
        check_problem(client.get("/p/mock/anything"), 401, "caller_unauthenticated", "authentication_error")
    assert mock.log() == []
    with gateway.new_client("pk_later") as client:
        assert client.get("/p/mock/anything").status_code == 200


def test_consumers_reach_what_they_are_allowed_and_no_more(start_gateway, mock):
    providers = {"mock": upstream(mock), "other": upstream(mock)}
    routes = {name: {"targets": [{"provider": "other"}]} for name in ("way", "back")}
    consumers = {"tester": {"allow": ["provider:mock", "route:way"]}}
    gateway = start_gateway(configuration(mock, providers=providers, routes=routes, consumers=consumers))
    assert gateway.get("/p/mock/anything").status_code == 200
    assert gateway.get("/r/way/anything").status_code == 200  # though its target alone is not allowed
    for path in ["/p/other/anything", "/r/back/anything"]:
        check_problem(gateway.get(path), 403, "caller_forbidden", "permission_error")
    assert len(mock.log()) == 2


@pytest.mark.parametrize(
    "path", ["/p/nobody/x", "/p/", "/p", "/r/nobody/x", "/nowhere", "/p/MOCK/x", "/v2/x"]
)
def test_what_is_not_there_is_told(start_gateway, mock, path):
    check_problem(
        start_gateway(configuration(mock)).get(path), 404, "caller_invalid", "invalid_request_error"
    )


@pytest.mark.parametrize(
    "path", ["/../x", "/a/../../x", "/%2e%2e/x", "/a/.%2E/x", "/./x", "/a/..", "/a\\..\\x", "/a/%2e"]
)
def test_paths_cannot_climb(start_gateway, mock, path):
    """The base URL's prefix and the priced endpoint are what the operator wrote."""
    gateway = start_gateway(configuration(mock, {"base_url": f"{mock.url}/anything"}))
    with connect(gateway.port) as client:
        client.send(request(path))
        assert client.response().status == 400
    assert mock.log() == []


@pytest.mark.parametrize(
    "path", ["/x/..y", "/...", "/a//b", "/%2F", "/a%20b?c=../d&e=%2e%2e", "/", "?only=query"]
)
def test_paths_and_queries_pass_untouched(start_gateway, mock, path):
    provider = Upstream()
    try:
        gateway = start_gateway(configuration(mock, {"base_url": f"http://127.0.0.1:{provider.port}/base"}))
        with connect(gateway.port) as client:
            client.send(request(path))
            assert client.response().status == 200
    finally:
        provider.close()
    assert provider.requests[0].target == "/base" + ("/" + path if path.startswith("?") else path)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_any_method_passes(start_gateway, mock, method):
    gateway = start_gateway(configuration(mock))
    answer = gateway.client.request(method, "/p/mock/anything/x?y=1", content=b"body")
    assert answer.status_code == 200
    seen = answer.json()
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == (
        method,
        "/anything/x",
        "y=1",
        "body",
    )


def test_answers_tell_what_happened(start_gateway, mock):
    gateway = start_gateway(configuration(mock, {"prices": {"per_call_usd": "0.01"}}))
    answer = gateway.get("/p/mock/anything")
    assert answer.headers.keys() >= FOR_ALL
    assert answer.headers["Penstock-Provider"] == "mock"
    assert answer.headers["Penstock-Cost"] == "0.01"
    assert answer.headers["Penstock-Waited"] == "0ms"
    assert gateway.calls()[0]["call"] == answer.headers["Penstock-Call"]


def test_a_tag_is_logged(start_gateway, mock):
    gateway = start_gateway(configuration(mock))
    assert gateway.get("/p/mock/anything", headers={"Penstock-Tag": "batch-7:a.b"}).status_code == 200
    (line,) = gateway.calls()
    assert line["tag"] == "batch-7:a.b"
    assert (line["consumer"], line["key"], line["provider"], line["status"]) == (
        "tester",
        "tester-1",
        "mock",
        200,
    )


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("Penstock-Lane", "batch", "express"),
        ("Penstock-Wait", "500ms", "soon"),
        ("Penstock-Cache", "bypass", "always"),
        ("Penstock-Tag", "a", "a b"),
    ],
)
def test_steering_headers_are_checked(start_gateway, mock, name, good, bad):
    gateway = start_gateway(configuration(mock))
    assert gateway.get("/p/mock/anything", headers={name: good}).status_code == 200
    refused = gateway.get("/p/mock/anything", headers={name: bad})
    check_problem(refused, 400, "caller_invalid", "invalid_request_error")
    assert name in refused.json()["detail"]
    assert len(mock.log()) == 1

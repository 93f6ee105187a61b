"""Credentials and keys appear nowhere (G10): a run with everything that can go wrong, and all that it emits."""

import json
import socket

import httpx
from harness import CHAT, configuration, key_hash, penstock, upstream
from raw_http import connect

HEADER_SECRET = "sk-provider-Header5ecret"
QUERY_SECRET = "geo-Query5ecret"
FILE_SECRET = "sk-File5ecret"
ENV_SECRET = "sk-Env5ecret"
GOOD_KEY = "pk_Good5ecretKey"
REVOKED_KEY = "pk_Revoked5ecretKey"
EXPIRED_KEY = "pk_Expired5ecretKey"
WRONG_KEY = "pk_Wrong5ecretKey"
SECRETS = [
    HEADER_SECRET,
    QUERY_SECRET,
    FILE_SECRET,
    ENV_SECRET,
    GOOD_KEY,
    REVOKED_KEY,
    EXPIRED_KEY,
    WRONG_KEY,
]
CALLERS = [GOOD_KEY, REVOKED_KEY, EXPIRED_KEY, WRONG_KEY]
KEY_FIELDS = {
    "Authorization": "Bearer {}",
    "X-Penstock-Key": "{}",
    "x-api-key": "{}",
    "x-goog-api-key": "{}",
}


def assert_no_secret(text, where):
    for secret in SECRETS:
        assert secret not in text, (secret, where)
        # Nor a part that is long enough to be of use, nor its hash.
        assert secret[-10:] not in text, (secret, where)
    for key in CALLERS:
        assert key_hash(key).removeprefix("sha256:")[:16] not in text, (key, where)


def dead_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def secret_config(mock, folder):
    (folder / "credential").write_text(FILE_SECRET + "\n")
    models = {"default_model": {"input_usd_per_million": 1, "output_usd_per_million": 1}}
    providers = {
        "mock": upstream(mock, api="openai", credential={"value": HEADER_SECRET}, prices=models),
        "geo": upstream(mock, credential={"query": "key", "value": QUERY_SECRET}),
        "file": upstream(mock, credential={"header": "x-api-key", "file": str(folder / "credential")}),
        "env": upstream(
            mock, credential={"value": "${PENSTOCK_TEST_SECRET}"}, base_url=f"http://127.0.0.1:{dead_port()}"
        ),
    }
    keys = {
        "good": {"consumer": "tester", "hash": key_hash(GOOD_KEY)},
        "revoked": {"consumer": "tester", "hash": key_hash(REVOKED_KEY), "revoked": True},
        "expired": {"consumer": "tester", "hash": key_hash(EXPIRED_KEY), "expires": "2020-01-01"},
    }
    return configuration(mock, providers=providers, keys=keys, log={"level": "debug", "calls": "all"}) | {
        "keys": keys
    }


def test_no_secret_is_emitted_by_anything(start_gateway, mock, tmp_path):
    config = secret_config(mock, tmp_path)
    gateway = start_gateway(config, env={"PENSTOCK_TEST_SECRET": ENV_SECRET})
    emitted = []

    def call(method, path, key, field="Authorization", **options):
        headers = {field: KEY_FIELDS[field].format(key)} | options.pop("headers", {})
        with httpx.Client(base_url=gateway.url, trust_env=False, timeout=20) as client:
            answer = client.request(method, path, headers=headers, **options)
        emitted.append(f"{answer.status_code} {answer.headers} {answer.text}")
        return answer.status_code

    for field in KEY_FIELDS:
        assert call("POST", "/p/mock/v1/chat/completions", GOOD_KEY, field, json=CHAT) == 200
        assert call("GET", "/p/geo/geocode?q=x", GOOD_KEY, field) == 200
        assert call("GET", "/p/file/bytes/5", GOOD_KEY, field) == 200
        assert call("GET", "/p/env/bytes/5", GOOD_KEY, field) == 502
        for key in (REVOKED_KEY, EXPIRED_KEY, WRONG_KEY):
            assert call("GET", "/p/mock/bytes/5", key, field) == 401
    for fault in [
        "status=503",
        "status=401",
        "cut_before_head=1",
        "fault=garbage",
        "fault=huge_header",
        "sse_error=1",
    ]:
        call("POST", f"/p/mock/v1/chat/completions?{fault}", GOOD_KEY, json=CHAT | {"stream": True})
        call("GET", f"/p/geo/bytes/5?{fault}", GOOD_KEY)
    call("GET", "/p/nobody/x", GOOD_KEY)
    call("GET", "/p/mock/../x", GOOD_KEY)
    call("GET", "/nowhere", GOOD_KEY)
    call("GET", "/p/mock/bytes/5", GOOD_KEY, headers={"Penstock-Lane": "express"})
    for raw in [
        f"GET /p/mock/ HTTP/1.1\r\nHost: a\r\nX-Penstock-Key: {GOOD_KEY}\r\nBroken {GOOD_KEY}\r\n\r\n",
        f"GET /p/mock/{GOOD_KEY} HTTP/9.1\r\nHost: a\r\n\r\n",
    ]:
        with connect(gateway.port) as client:
            client.send(raw.encode())
            emitted.append(client.rest().decode())
    for path in ["/metrics", "/health", "/health/providers", "/health/ready", "/api/v1/health", "/"]:
        emitted.append(httpx.get(gateway.url + path, trust_env=False).text)

    broken = json.loads(json.dumps(config))
    broken["providers"]["mock"]["credential"]["headr"] = HEADER_SECRET
    broken["providers"]["geo"]["credential"] = {
        "value": QUERY_SECRET,
        "file": QUERY_SECRET,
        "header": "no good",
    }
    broken["keys"]["plain"] = {"consumer": "tester", "hash": WRONG_KEY}
    gateway.reload(broken, expect="configuration refused")
    assert call("GET", "/p/geo/bytes/5", GOOD_KEY) == 200

    (tmp_path / "broken.yaml").write_text(json.dumps(broken))
    checked = penstock(
        "check", "--config", str(tmp_path / "broken.yaml"), env={"PENSTOCK_TEST_SECRET": ENV_SECRET}
    )
    assert checked.returncode == 1
    emitted += [checked.stdout, checked.stderr]

    gateway.calls(10)
    gateway.stop()
    emitted += [gateway.stdout, gateway.stderr()]
    for text in emitted:
        assert_no_secret(text, text[:3000])


def test_the_provider_gets_its_credential_and_never_the_callers_key(start_gateway, mock, tmp_path):
    gateway = start_gateway(secret_config(mock, tmp_path), env={"PENSTOCK_TEST_SECRET": ENV_SECRET})

    def seen(path, headers):
        answer = httpx.get(gateway.url + path, headers=headers, trust_env=False)
        assert answer.status_code == 200
        return answer.text

    for field, form in KEY_FIELDS.items():
        key = {field: form.format(GOOD_KEY)}
        for others in (
            {},
            {other: KEY_FIELDS[other].format(WRONG_KEY) for other in KEY_FIELDS if other != field},
        ):
            if others and field != "X-Penstock-Key":
                continue  # two keys: which one counts is defined for this one only
            text = seen("/p/mock/anything", key | others)
            assert HEADER_SECRET in text
            assert "pk_" not in text, (field, others)
            text = seen("/p/geo/anything?q=1", key | others)
            assert f"q=1&key={QUERY_SECRET}" in text
            assert "pk_" not in text, (field, others)
            text = seen("/p/file/anything", key | others)
            assert FILE_SECRET in text
            assert "pk_" not in text, (field, others)
    # What belongs to the gateway or to other hops stays here too.
    text = seen(
        "/p/mock/anything",
        {
            "X-Penstock-Key": GOOD_KEY,
            "Cookie": "session=1",
            "Proxy-Authorization": "x",
            "X-Forwarded-For": "1.2.3.4",
            "Forwarded": "for=1.2.3.4",
            "Penstock-Tag": "t",
            "Penstock-Lane": "batch",
            "X-Mine": "kept",
        },
    )
    names = {name.lower() for name in json.loads(text)["headers"]}
    assert "x-mine" in names
    assert names.isdisjoint(
        {
            "cookie",
            "proxy-authorization",
            "x-forwarded-for",
            "forwarded",
            "penstock-tag",
            "penstock-lane",
            "x-penstock-key",
        }
    )


def test_a_callers_own_credential_passes_where_the_gateway_has_none(start_gateway, mock):
    provider = upstream(mock)
    del provider["credential"]
    config = configuration(mock, providers={"mock": provider})
    config["keys"] = {"good": {"consumer": "tester", "hash": key_hash(GOOD_KEY)}}
    gateway = start_gateway(config)
    headers = {"X-Penstock-Key": GOOD_KEY, "Authorization": "Bearer sk-own"}
    text = httpx.get(gateway.url + "/p/mock/anything", headers=headers, trust_env=False).text
    assert "Bearer sk-own" in text
    assert "pk_" not in text

#include "policy/provider_gate.hpp"

#include <gtest/gtest.h>

namespace penstock::policy {
namespace {

using namespace std::chrono_literals;
using Answer = LimitSigns::Answer;
using Ending = ProviderGate::Ending;

constexpr MonotonicTime kStart{1'000h};
constexpr GateSpec kAll{.learns_limits = true, .adapts_concurrency = true};

LimitSigns nothing_left() {
  LimitSigns signs{.answer = Answer::good, .retry_after = {}};
  signs.readings[0] = LimitReading{.limit = 60, .remaining = 0, .reset = 60s};
  return signs;
}

// Providers count models apart: one that is used up must not stop the others.
TEST(ProviderGateTest, EachClassHasItsOwnLimit) {
  ProviderGate gate;
  gate.reconfigure(kAll);
  const auto large = gate.take({.limit_class = 1}, kStart);
  gate.take({.limit_class = 2}, kStart);
  gate.learn(large, nothing_left(), kStart);
  EXPECT_EQ(gate.wait_for({.limit_class = 1}, kStart), 60s);
  EXPECT_EQ(gate.wait_for({.limit_class = 2}, kStart), 0s);
  EXPECT_EQ(gate.limit(LimitDimension::requests, kStart).value().limit, 60);
}

TEST(ProviderGateTest, ClassesBeyondTheBoundShareTheFirstOnesLimit) {
  ProviderGate gate;
  gate.reconfigure(kAll);
  for (std::uint32_t limit_class = 0; limit_class < ProviderGate::kMaxClasses; ++limit_class)
    gate.take({.limit_class = limit_class}, kStart);
  gate.learn(gate.take({.limit_class = 1'000}, kStart), nothing_left(), kStart);
  EXPECT_GT(gate.wait_for({.limit_class = 2'000}, kStart), 0s);
  EXPECT_GT(gate.wait_for({.limit_class = 0}, kStart), 0s);
  EXPECT_EQ(gate.wait_for({.limit_class = 63}, kStart), 0s);
}

// What a limit explains is not the provider's capacity.
TEST(ProviderGateTest, OnlyRefusalsForCapacityLowerTheConcurrency) {
  ProviderGate gate;
  gate.reconfigure(kAll);
  const auto refuse = [&](LimitSigns signs) {
    gate.learn(gate.take({}, kStart), signs, kStart);
    return gate.concurrency().has_value();
  };
  LimitSigns refused = nothing_left();
  refused.answer = Answer::rate_limited;
  EXPECT_FALSE(refuse(refused));
  EXPECT_FALSE(refuse({.answer = Answer::rate_limited, .retry_after = 1s}));
  EXPECT_FALSE(refuse({.answer = Answer::other, .retry_after = {}}));
  EXPECT_TRUE(refuse({.answer = Answer::overloaded, .retry_after = {}}));
}

TEST(ProviderGateTest, ConcurrencyIsKept) {
  ProviderGate gate;
  gate.reconfigure({.adapts_concurrency = true});
  std::vector<ProviderGate::Ticket> tickets;
  for (int i = 0; i < 20; ++i) tickets.push_back(gate.take({}, kStart));
  gate.learn(tickets[0], {.answer = Answer::overloaded, .retry_after = {}}, kStart);
  EXPECT_EQ(gate.concurrency(), 18U);
  EXPECT_EQ(gate.wait_for({}, kStart), 1s);
  for (int i = 0; i < 3; ++i) gate.end(tickets[static_cast<std::size_t>(i)], Ending::otherwise);
  EXPECT_EQ(gate.wait_for({}, kStart), 0s);
  EXPECT_EQ(gate.in_flight(), 17U);
}

// A reload: what is off is forgotten at once, and tickets from before still end well.
TEST(ProviderGateTest, WhatIsTurnedOffIsForgotten) {
  ProviderGate gate;
  const auto before = gate.take({}, kStart);
  gate.reconfigure(kAll);
  const auto ticket = gate.take({}, kStart);
  gate.learn(before, nothing_left(), kStart);
  EXPECT_EQ(gate.wait_for({}, kStart), 0s);
  gate.learn(ticket, nothing_left(), kStart);
  gate.learn(ticket, {.answer = Answer::overloaded, .retry_after = {}}, kStart);
  EXPECT_GT(gate.wait_for({}, kStart), 0s);
  gate.reconfigure({});
  EXPECT_EQ(gate.wait_for({}, kStart), 0s);
  EXPECT_FALSE(gate.concurrency() || gate.limit(LimitDimension::requests, kStart));
  gate.end(before, Ending::well);
  gate.end(ticket, Ending::well);
  EXPECT_EQ(gate.in_flight(), 0U);
}

}  // namespace
}  // namespace penstock::policy

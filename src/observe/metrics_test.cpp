#include "observe/metrics.hpp"

#include <array>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

namespace penstock::observe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr std::int64_t kBounds[] = {1'000'000, 10'000'000, 100'000'000};  // 1, 10 and 100 ms

template <class Series>
std::string written(const Family<Series>& family) {
  std::string out;
  family.write(out);
  return out;
}

std::string source_file(const std::string& name) {
  std::ifstream file(PENSTOCK_SOURCE_DIR "/" + name);
  EXPECT_TRUE(file) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(CounterFamily, WritesExactMoney) {
  Family<Counter> family("spent_usd_total", "Spent.", Kind::counter, {"provider"}, {9});
  family.with({"openai"}).add(1);
  family.with({"openai"}).add(20'000'000'000);
  family.with({"geocoder"}).add(5'000'000);
  EXPECT_EQ(written(family),
            "# HELP spent_usd_total Spent.\n"
            "# TYPE spent_usd_total counter\n"
            "spent_usd_total{provider=\"geocoder\"} 0.005\n"
            "spent_usd_total{provider=\"openai\"} 20.000000001\n");
}

TEST(GaugeFamily, WritesNegativeAndFractionalValues) {
  Family<Gauge> family("g", "G.", Kind::gauge, {}, {6});
  EXPECT_EQ(written(family), "# HELP g G.\n# TYPE g gauge\n");  // no series yet
  family.with({}).set(250'000);
  EXPECT_THAT(written(family), HasSubstr("\ng 0.25\n"));
  family.with({}).add(-500'000);
  EXPECT_THAT(written(family), HasSubstr("\ng -0.25\n"));
}

TEST(HistogramFamily, WritesCumulativeBucketsSumAndCount) {
  Family<Histogram> family("t_seconds", "T.", Kind::histogram, {"lane"}, {9}, kBounds);
  Histogram& series = family.with({"batch"});
  series.observe(nanoseconds{0});
  series.observe(milliseconds{1});  // le: a bound belongs to its bucket
  series.observe(nanoseconds{1'000'001});
  series.observe(seconds{2});
  series.observe(nanoseconds{-5});  // a clock that slipped: nothing, not a negative sum
  EXPECT_EQ(written(family),
            "# HELP t_seconds T.\n"
            "# TYPE t_seconds histogram\n"
            "t_seconds_bucket{lane=\"batch\",le=\"0.001\"} 3\n"
            "t_seconds_bucket{lane=\"batch\",le=\"0.01\"} 4\n"
            "t_seconds_bucket{lane=\"batch\",le=\"0.1\"} 4\n"
            "t_seconds_bucket{lane=\"batch\",le=\"+Inf\"} 5\n"
            "t_seconds_sum{lane=\"batch\"} 2.002000001\n"
            "t_seconds_count{lane=\"batch\"} 5\n");
}

TEST(FamilyText, EscapesLabelValuesAndHelp) {
  Family<Counter> family("c_total", "One\\two\nthree \"four\".", Kind::counter, {"a"}, {0});
  family.with({"q\" b\\ n\n"}).add();
  family.with({"é\xFF\x01"}).add();
  EXPECT_EQ(written(family),
            "# HELP c_total One\\\\two\\nthree \"four\".\n"
            "# TYPE c_total counter\n"
            "c_total{a=\"q\\\" b\\\\ n\\n\"} 1\n"
            "c_total{a=\"é\xEF\xBF\xBD\xEF\xBF\xBD\"} 1\n");
}

// A value that could end its label and start another would let its author forge any series.
TEST(FamilyText, AValueCannotLeaveItsQuotes) {
  Family<Counter> family("c_total", "C.", Kind::counter, {"a"}, {0});
  family.with({"x\"} 1\nforged_total{b=\"y"}).add();
  const std::string text = written(family);
  EXPECT_THAT(text, Not(HasSubstr("\nforged_total")));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
}

TEST(FamilyWith, GivesOneStableSeriesForEachListOfValues) {
  Family<Counter> family("c_total", "C.", Kind::counter, {"a", "b"}, {0});
  Counter& first = family.with({"x", "y"});
  for (int i = 0; i < 1'000; ++i) family.with({std::to_string(i), "y"}).add();
  EXPECT_EQ(&family.with({"x", "y"}), &first);
  EXPECT_NE(&family.with({"y", "x"}), &first);
  EXPECT_NE(&family.with({"xy", ""}), &first);
  EXPECT_EQ(family.size(), 1'003U);
}

TEST(FamilyWith, RefusesAWrongNumberOfValues) {
  Family<Counter> family("c_total", "C.", Kind::counter, {"a", "b"}, {0});
  EXPECT_THROW(family.with({"x"}), std::logic_error);
  EXPECT_THROW(family.with({"x", "y", "z"}), std::logic_error);
  EXPECT_EQ(family.size(), 0U);
}

// Whoever finds a label that callers can fill gets one more series out of a million, and no count is lost.
TEST(FamilyWith, BoundsTheNumberOfSeries) {
  constexpr std::size_t kMost = 10'000;
  constexpr int kCalls = 1'000'000;
  Family<Counter> family("c_total", "C.", Kind::counter, {"a", "b"}, {0}, {}, kMost);
  Counter& early = family.with({"early", "bird"});
  for (int i = 0; i < kCalls; ++i) {
    std::array<char, 12> text{};
    const int n = std::snprintf(text.data(), text.size(), "%d", i);
    family.with({{text.data(), static_cast<std::size_t>(n)}, "b"}).add();
  }
  EXPECT_EQ(family.size(), kMost + 1);  // and "other"
  EXPECT_EQ(family.with({"other", "other"}).value(), kCalls - static_cast<int>(kMost - 1));
  EXPECT_EQ(&family.with({"early", "bird"}), &early);  // what was there stays
}

TEST(FamilyWith, CountsUnderOtherAlsoWhereThatWasASeriesBefore) {
  Family<Counter> family("c_total", "C.", Kind::counter, {"a"}, {0}, {}, 2);
  Counter& other = family.with({"other"});
  family.with({"x"});
  EXPECT_EQ(&family.with({"y"}), &other);
  EXPECT_EQ(&family.with({"z"}), &other);
  EXPECT_EQ(family.size(), 2U);
}

// A report may make series of the same family while it looks: no lock is held meanwhile.
TEST(FamilyVisit, ShowsEverySeriesInOrderAndHoldsNoLock) {
  Family<Counter> family("c_total", "C.", Kind::counter, {"a", "b"}, {0});
  family.with({"x", "2"}).add(2);
  family.with({"x", "1"}).add(1);
  std::vector<std::string> seen;
  family.visit([&](const std::vector<std::string>& values, const Counter& series) {
    seen.push_back(values[0] + values[1] + '=' + std::to_string(series.value()));
    family.with({"new", values[1]});
  });
  EXPECT_THAT(seen, ElementsAre("x1=1", "x2=2"));
  EXPECT_EQ(family.size(), 4U);
}

// Workers add while others make series and a scraper reads: no count is lost, no page contradicts itself.
TEST(FamilyThreads, AddMakeAndWriteTogether) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 2'000;
  Family<Counter> counters("c_total", "C.", Kind::counter, {"a"}, {0});
  Family<Histogram> histograms("h_seconds", "H.", Kind::histogram, {}, {9}, kBounds);
  histograms.with({});
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&] {
      Histogram& histogram = histograms.with({});
      for (int i = 0; i < kRounds; ++i) {
        counters.with({std::to_string(i % 50)}).add();
        histogram.observe(nanoseconds{i * 100'000LL});
      }
    });
  for (int i = 0; i < 50; ++i) {
    std::istringstream page(written(counters) + written(histograms));
    std::int64_t last = 0;
    for (std::string line; std::getline(page, line);) {
      if (!line.starts_with("h_seconds")) continue;
      const std::int64_t value =
          line.starts_with("h_seconds_sum") ? last : std::stoll(line.substr(line.find(' ')));
      EXPECT_GE(value, last) << line;  // cumulative
      if (line.starts_with("h_seconds_count")) EXPECT_EQ(value, last);
      last = value;
    }
  }
  for (auto& thread : threads) thread.join();
  std::int64_t sum = 0;
  for (int i = 0; i < 50; ++i) sum += counters.with({std::to_string(i)}).value();
  EXPECT_EQ(sum, kThreads * kRounds);
  EXPECT_EQ(histograms.with({}).count(), kThreads * kRounds);
}

TEST(HistogramQuantile, InterpolatesWithinABucket) {
  Histogram histogram(kBounds);
  EXPECT_EQ(histogram.quantile(0.5), nanoseconds{0});
  for (int i = 0; i < 10; ++i) histogram.observe(milliseconds{5});  // all between 1 and 10 ms
  EXPECT_EQ(histogram.quantile(0.0), milliseconds{1});
  EXPECT_EQ(histogram.quantile(0.5), std::chrono::microseconds{5'500});
  EXPECT_EQ(histogram.quantile(1.0), milliseconds{10});
  EXPECT_EQ(histogram.quantile(7.0), milliseconds{10});
  EXPECT_EQ(histogram.quantile(-1.0), milliseconds{1});
  for (int i = 0; i < 90; ++i) histogram.observe(seconds{5});
  EXPECT_EQ(histogram.quantile(0.95), milliseconds{100});  // above the last bound: at least that
}

TEST(HistogramQuantile, NeverLeavesTheBucketOfTheTrueOne) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 300; ++round) {
    Histogram histogram(kBounds);
    std::vector<std::int64_t> values(1 + random() % 200);
    for (auto& value : values) {
      value = static_cast<std::int64_t>(random() % 100'000'000) >> (random() % 20);
      histogram.observe(nanoseconds{value});
    }
    std::sort(values.begin(), values.end());
    nanoseconds last{0};
    for (const double q : {0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0}) {
      const auto rank = std::max(1.0, std::ceil(q * static_cast<double>(values.size()) - 1e-9));
      const std::int64_t truth = values[static_cast<std::size_t>(rank) - 1];
      const auto upper = std::lower_bound(std::begin(kBounds), std::end(kBounds), truth);
      const std::int64_t lower = upper == std::begin(kBounds) ? 0 : *(upper - 1);
      const nanoseconds estimate = histogram.quantile(q);
      ASSERT_GE(estimate.count(), lower) << q;
      ASSERT_LE(estimate.count(), *upper) << q;
      ASSERT_GE(estimate, last);
      last = estimate;
    }
  }
}

/// A family as both the contract and the binary can say it.
struct Described {
  std::string name, type, help;
  std::vector<std::string> labels;
  int decimals = 0;
  std::vector<std::int64_t> bounds;
  friend bool operator==(const Described&, const Described&) = default;
};

std::ostream& operator<<(std::ostream& out, const Described& d) {
  return out << d.name << ' ' << d.type << ' ' << testing::PrintToString(d.labels) << " /1e" << d.decimals
             << ' ' << testing::PrintToString(d.bounds) << ' ' << d.help;
}

std::map<std::string, Described> contract() {
  std::map<std::string, Described> all;
  const YAML::Node root = YAML::LoadFile(PENSTOCK_SOURCE_DIR "/contracts/metrics.yaml");
  std::set<std::string> used;
  for (const auto& entry : root["metrics"]) {
    Described d;
    d.name = entry.first.as<std::string>();
    const YAML::Node& metric = entry.second;
    d.type = metric["type"].as<std::string>();
    d.help = metric["help"].as<std::string>();
    for (const auto& label : metric["labels"]) {
      d.labels.push_back(label.first.as<std::string>());
      const auto set = label.second.as<std::string>();
      EXPECT_TRUE(root["label_sets"][set]) << d.name << " takes values from an unknown set: " << set;
      used.insert(set);
    }
    const auto unit = metric["unit"].as<std::string>();
    d.decimals = unit == "seconds" || unit == "usd" ? 9 : unit == "ratio" ? 6 : 0;
    for (const auto& bound : metric["buckets"]) d.bounds.push_back(std::llround(bound.as<double>() * 1e9));
    EXPECT_TRUE(all.emplace(d.name, d).second) << d.name << " stands there twice";
  }
  for (const auto& set : root["label_sets"])
    EXPECT_TRUE(used.contains(set.first.as<std::string>())) << "no label uses " << set.first;
  return all;
}

std::map<std::string, Described> catalogue() {
  std::map<std::string, Described> all;
  Metrics{}.for_each([&](const auto& family) {
    static constexpr const char* kTypes[] = {"counter", "gauge", "histogram"};
    const auto bounds = family.bounds();
    all[family.name()] = {.name = family.name(),
                          .type = kTypes[static_cast<int>(family.kind())],
                          .help = family.help(),
                          .labels = family.labels(),
                          .decimals = family.scale().decimals,
                          .bounds = {bounds.begin(), bounds.end()}};
  });
  return all;
}

TEST(Catalogue, IsTheContract) {
  const auto written_down = contract();
  const auto built = catalogue();
  for (const auto& [name, d] : written_down) {
    ASSERT_TRUE(built.contains(name)) << name << " is in contracts/metrics.yaml only";
    EXPECT_EQ(built.at(name), d);
  }
  for (const auto& [name, d] : built)
    EXPECT_TRUE(written_down.contains(name)) << name << " is in metrics.cpp only";
}

// for_each names every member: a family that it forgot would never be scraped.
TEST(Catalogue, EveryMemberIsExposed) {
  std::size_t size = 0;
  Metrics metrics;
  metrics.for_each([&](const auto& family) { size += sizeof family; });
  EXPECT_EQ(size, sizeof metrics);
}

TEST(Catalogue, BoundsRise) {
  Metrics{}.for_each([](const auto& family) {
    const auto bounds = family.bounds();
    EXPECT_EQ(family.kind() == Kind::histogram, !bounds.empty()) << family.name();
    EXPECT_TRUE(std::is_sorted(bounds.begin(), bounds.end(), std::less_equal<>{})) << family.name();
  });
}

// The manual has one row for each metric, with its type, labels and help.
TEST(Catalogue, IsTheManual) {
  std::set<std::string> rows;
  std::istringstream manual(source_file("docs/metrics.md"));
  bool in_table = false;
  for (std::string line; std::getline(manual, line);) {
    if (line.starts_with("## ")) in_table = line == "## What there is";
    if (in_table && line.starts_with("| `")) rows.insert(line);
  }
  const YAML::Node metrics = YAML::LoadFile(PENSTOCK_SOURCE_DIR "/contracts/metrics.yaml")["metrics"];
  for (const auto& entry : metrics) {
    std::string labels;
    for (const auto& label : entry.second["labels"])
      labels += (labels.empty() ? "`" : ", `") + label.first.as<std::string>() + "`";
    std::string row = "| `" + entry.first.as<std::string>() + "` | " + entry.second["type"].as<std::string>();
    row += " | " + (labels.empty() ? "–" : labels) + " | " + entry.second["unit"].as<std::string>() + " | ";
    row += entry.second["help"].as<std::string>() + " |";
    EXPECT_EQ(rows.erase(row), 1U) << "docs/metrics.md has no row\n" << row;
  }
  EXPECT_THAT(rows, ElementsAre()) << "no such metric";
}

// Values that the contract lists stand in the manual, in a row of their label.
TEST(Catalogue, TheManualNamesEveryLabelValue) {
  const std::string manual = source_file("docs/metrics.md");
  const YAML::Node root = YAML::LoadFile(PENSTOCK_SOURCE_DIR "/contracts/metrics.yaml");
  for (const auto& entry : root["metrics"])
    for (const auto& label : entry.second["labels"]) {
      std::string values;
      for (const auto& value : root["label_sets"][label.second.as<std::string>()]["values"])
        values += (values.empty() ? "`" : ", `") + value.as<std::string>() + "`";
      std::istringstream lines(manual);
      bool found = false;
      for (std::string line; std::getline(lines, line);)
        found |=
            line.starts_with("| `" + label.first.as<std::string>() + "` | ") && line.ends_with(values + " |");
      EXPECT_TRUE(found) << label.first << ": " << values;
    }
}

TEST(Catalogue, NewRegistryShowsEveryFamily) {
  const std::string page = Metrics{}.exposition();
  for (const auto& [name, d] : contract()) {
    EXPECT_THAT(page, HasSubstr("# HELP " + name + ' '));
    EXPECT_THAT(page, HasSubstr("# TYPE " + name + ' ' + d.type + '\n'));
  }
  EXPECT_THAT(page, HasSubstr("\npenstock_reservations_expired_total 0\n"));
  EXPECT_TRUE(page.ends_with('\n'));
}

template <class Series>
void fill(Family<Series>& family, std::string_view value) {
  Series* series = nullptr;
  switch (family.labels().size()) {
    case 0: series = &family.with({}); break;
    case 1: series = &family.with({value}); break;
    case 2: series = &family.with({value, value}); break;
    default: series = &family.with({value, value, value}); break;
  }
  if constexpr (std::is_same_v<Series, Histogram>) {
    series->observe(milliseconds{7});
  } else {
    series->add(123'456'789);
  }
}

// The reference reader says nothing: neither about the empty page nor about a full one.
TEST(Catalogue, PromtoolIsSilent) {
  if (std::system("command -v promtool >/dev/null 2>&1") != 0) GTEST_SKIP() << "promtool is not installed";
  const auto folder =
      std::filesystem::temp_directory_path() / ("penstock-metrics-" + std::to_string(::getpid()));
  std::filesystem::create_directory(folder);
  Metrics metrics;
  for (const bool full : {false, true}) {
    if (full)
      metrics.for_each([]<class Series>(const Family<Series>& family) {
        for (const char* value : {"openai", "a\"b\\c\nd", "\xFF\x01", ""})
          fill(const_cast<Family<Series>&>(family), value);
      });
    const auto page = folder / "page";
    const auto said = folder / "said";
    std::ofstream(page, std::ios::binary) << metrics.exposition();
    const std::string command = "promtool check metrics <" + page.string() + " >" + said.string() + " 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0);
    std::ifstream file(said);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "");
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace penstock::observe

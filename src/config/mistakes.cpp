#include "config/mistakes.hpp"

#include <algorithm>
#include <array>
#include <tuple>

#include <fmt/format.h>

namespace penstock::config {

namespace {

constexpr std::size_t kMostShown = 60;
constexpr std::size_t kMostCompared =
    64;  // longer texts are never near misses; bounds the quadratic comparison

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

std::string to_string(const Mistake& mistake) {
  std::string line =
      fmt::format("{}:{}:{}: {}", mistake.place.file, mistake.place.line, mistake.place.column, mistake.text);
  if (!mistake.hint.empty()) line += "; " + mistake.hint;
  return line;
}

void Mistakes::add(Mark at, std::string text, std::string hint) {
  if (mistakes_.size() >= kMost) return;
  mistakes_.push_back({.place = {.file = file_, .line = at.line, .column = at.column},
                       .text = std::move(text),
                       .hint = std::move(hint)});
}

std::vector<Mistake> Mistakes::take() {
  std::ranges::sort(mistakes_, {}, [](const Mistake& mistake) {
    return std::tuple(mistake.place.line, mistake.place.column, std::string_view(mistake.text));
  });
  return std::move(mistakes_);
}

std::string shown(std::string_view text) {
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    // Never cut inside a UTF-8 sequence: its later bytes are 10xxxxxx.
    if (i >= kMostShown && (static_cast<unsigned char>(c) & 0xC0U) != 0x80U) {
      out += "…";
      break;
    }
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  if (a.size() > kMostCompared || b.size() > kMostCompared) return kMostCompared;
  using Row = std::array<std::size_t, kMostCompared + 1>;
  Row before_last{};
  Row last{};
  Row row{};
  for (std::size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool same = lower(a[i - 1]) == lower(b[j - 1]);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (same ? 0U : 1U)});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1])) {
        row[j] = std::min(row[j], before_last[j - 2] + 1);
      }
    }
    before_last = last;
    last = row;
  }
  return last[b.size()];
}

std::string_view nearest(std::string_view text, std::span<const std::string_view> candidates) {
  std::string_view best;
  std::size_t best_distance = 3;
  for (const std::string_view candidate : candidates) {
    const std::size_t distance = edit_distance(text, candidate);
    if (distance < best_distance && distance < candidate.size()) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string near_miss(std::string_view text, std::span<const std::string_view> candidates) {
  const std::string_view best = nearest(text, candidates);
  return best.empty() ? std::string() : fmt::format("did you mean {}?", shown(best));
}

std::string list_of(std::span<const std::string_view> words, std::string_view last_joint) {
  std::string out;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) out += i + 1 == words.size() ? last_joint : std::string_view(", ");
    out += words[i];
  }
  return out;
}

}  // namespace penstock::config

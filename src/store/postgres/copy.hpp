#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "store/sql/batch_plan.hpp"
#include "store/sql/session.hpp"

namespace penstock::store::postgres {

/// The input of COPY … (FORMAT BINARY): rows of fields, each with its length, all big-endian. The fields'
/// types must be the columns'. Source: PostgreSQL's documentation, COPY, "Binary Format".
class CopyRows {
 public:
  explicit CopyRows(std::int16_t columns) : columns_(columns) {
    out_.append("PGCOPY\n\xFF\r\n\0", 11);
    put(std::uint32_t{0});  // flags
    put(std::uint32_t{0});  // length of the header's extension
  }
  void row() { put(static_cast<std::uint16_t>(columns_)); }
  void bigint(std::int64_t value) { field(static_cast<std::uint64_t>(value)); }
  void smallint(std::int64_t value) { field(static_cast<std::uint16_t>(value)); }
  void uuid(sql::RowId id) {
    put(std::uint32_t{16});
    put(id.epoch);
    put(id.sequence);
  }
  void text(std::string_view value) {
    if (!sql::is_plain_utf8(value)) return text(sql::to_plain_utf8(value));
    put(static_cast<std::uint32_t>(value.size()));
    out_ += value;
  }
  void null() { put(std::uint32_t{0xFFFF'FFFF}); }
  /// The whole input; no row after it.
  [[nodiscard]] const std::string& finish() {
    put(std::uint16_t{0xFFFF});
    return out_;
  }

 private:
  template <class Number>
  void field(Number value) {
    put(std::uint32_t{sizeof value});
    put(value);
  }
  template <class Number>
  void put(Number value) {
    char bytes[sizeof value];
    for (std::size_t i = 0; i < sizeof value; ++i)
      bytes[i] = static_cast<char>(value >> (8 * (sizeof value - 1 - i)));
    out_.append(bytes, sizeof bytes);
  }

  std::int16_t columns_;
  std::string out_;
};

/// "{1,2,3}": an array of numbers or ids as a parameter.
class ArrayText {
 public:
  void add(std::int64_t value) {
    next();
    char digits[24];
    out_.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
  }
  void add(sql::RowId id) {
    next();
    out_ += to_string(CallId{id.epoch, id.sequence});
  }
  [[nodiscard]] std::string_view finish() {
    out_ += '}';
    return out_;
  }

 private:
  void next() { out_ += out_.empty() ? '{' : ','; }
  std::string out_;
};

}  // namespace penstock::store::postgres

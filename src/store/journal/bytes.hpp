#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

/// Integers and texts in bytes, little-endian, with bounds. After a step that does not fit, `ok()` is false
/// and every later step does nothing.
namespace penstock::store {

static_assert(std::endian::native == std::endian::little);

class ByteWriter {
 public:
  explicit ByteWriter(std::span<std::byte> out) noexcept : out_(out) {}

  template <std::integral T>
  void put(T value) noexcept {
    put_bytes(&value, sizeof value);
  }
  /// At most 65535 bytes.
  void put_text(std::string_view text) noexcept {
    if (text.size() > UINT16_MAX) ok_ = false;
    put(static_cast<std::uint16_t>(text.size()));
    put_bytes(text.data(), text.size());
  }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] bool ok() const noexcept { return ok_; }

 private:
  void put_bytes(const void* bytes, std::size_t count) noexcept {
    if (!ok_ || count > out_.size() - size_) {
      ok_ = false;
      return;
    }
    if (count != 0) std::memcpy(out_.data() + size_, bytes, count);
    size_ += count;
  }

  std::span<std::byte> out_;
  std::size_t size_ = 0;
  bool ok_ = true;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> in) noexcept : in_(in) {}

  /// 0 after a step that does not fit.
  template <std::integral T>
  [[nodiscard]] T get() noexcept {
    T value{};
    if (!ok_ || in_.size() < sizeof value) {
      ok_ = false;
      return value;
    }
    std::memcpy(&value, in_.data(), sizeof value);
    in_ = in_.subspan(sizeof value);
    return value;
  }
  /// A view into the input.
  [[nodiscard]] std::string_view get_text(std::size_t max_size) noexcept {
    const std::size_t size = get<std::uint16_t>();
    if (!ok_ || size > max_size || size > in_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view text(reinterpret_cast<const char*>(in_.data()), size);
    in_ = in_.subspan(size);
    return text;
  }
  [[nodiscard]] bool ok() const noexcept { return ok_; }
  [[nodiscard]] bool at_end() const noexcept { return ok_ && in_.empty(); }

 private:
  std::span<const std::byte> in_;
  bool ok_ = true;
};

}  // namespace penstock::store

// A view of a row-major image that belongs to another object.
#pragma once

#include <cstddef>
#include <type_traits>

namespace cellfleet {

template <class T>
struct View {
  T* data;
  std::size_t height;
  std::size_t width;

  [[nodiscard]] T* row(std::size_t y) const { return data + y * width; }
  [[nodiscard]] std::size_t size() const { return height * width; }
  // A view of mutable pixels is a view of constant ones, too.
  operator View<const T>() const  // NOLINT(*explicit-constructor)
    requires(!std::is_const_v<T>)
  {
    return {data, height, width};
  }
};

}  // namespace cellfleet

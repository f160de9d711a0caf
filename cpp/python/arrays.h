// What every binding file shares: NumPy arrays as views, and results as arrays that Python owns.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "cellfleet/view.h"

namespace cellfleet::python {

template <class T>
using In = nanobind::ndarray<const T, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;
template <class T>
using InOut = nanobind::ndarray<T, nanobind::ndim<2>, nanobind::c_contig, nanobind::device::cpu>;
template <class T>
using Image = nanobind::ndarray<nanobind::numpy, T, nanobind::ndim<2>>;

template <class T>
View<const T> view(const In<T>& a) {
  return {a.data(), a.shape(0), a.shape(1)};
}

// A new image that Python owns, and a view of it.
template <class T>
std::pair<Image<T>, View<T>> make_image(std::size_t height, std::size_t width) {
  auto pixels = std::make_unique_for_overwrite<T[]>(std::max<std::size_t>(1, height * width));
  T* data = pixels.get();
  const nanobind::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  static_cast<void>(pixels.release());
  return {Image<T>(data, {height, width}, owner), View<T>{data, height, width}};
}

}  // namespace cellfleet::python

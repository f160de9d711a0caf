// The Python module cellfleet._kernels; src/cellfleet/_kernels.pyi is its description.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cellfleet/measure.h"
#include "cellfleet/moments.h"
#include "cellfleet/objects.h"
#include "cellfleet/quantise.h"
#include "cellfleet/resample.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T>
using In = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using InOut = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Image = nb::ndarray<nb::numpy, T, nb::ndim<2>>;
template <class T>
using Column = nb::ndarray<nb::numpy, T, nb::ndim<1>>;

template <class T>
cellfleet::View<const T> view(const In<T>& a) {
  return {a.data(), a.shape(0), a.shape(1)};
}

// A new image that Python owns, and a view of it.
template <class T>
std::pair<Image<T>, cellfleet::View<T>> make_image(std::size_t height, std::size_t width) {
  auto pixels = std::make_unique_for_overwrite<T[]>(std::max<std::size_t>(1, height * width));
  T* data = pixels.get();
  nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  static_cast<void>(pixels.release());
  return {Image<T>(data, {height, width}, owner), cellfleet::View<T>{data, height, width}};
}

template <class T>
nb::tuple py_moments(const In<T>& pixels) {
  cellfleet::Moments m{};
  {
    nb::gil_scoped_release free;
    m = cellfleet::moments(view(pixels));
  }
  return nb::make_tuple(m.mean, m.std);
}

template <class T>
Image<T> py_resample(const In<T>& pixels, std::size_t height, std::size_t width) {
  auto [image, out] = make_image<T>(height, width);
  {
    nb::gil_scoped_release free;
    cellfleet::resample(view(pixels), out);
  }
  return image;
}

Image<std::uint16_t> py_quantise(const In<float>& p) {
  auto [image, out] = make_image<std::uint16_t>(p.shape(0), p.shape(1));
  {
    nb::gil_scoped_release free;
    cellfleet::quantise(view(p), out);
  }
  return image;
}

nb::tuple py_objects(const In<std::uint16_t>& foreground, const InOut<std::uint16_t>& distance,
                     std::uint16_t foreground_threshold, std::uint16_t seed_threshold, unsigned smooth_passes,
                     std::uint64_t min_seed_area, std::uint64_t min_area) {
  auto [image, labels] = make_image<std::uint32_t>(foreground.shape(0), foreground.shape(1));
  const cellfleet::ObjectSettings settings{foreground_threshold, seed_threshold, smooth_passes, min_seed_area, min_area};
  std::uint32_t count = 0;
  {
    nb::gil_scoped_release free;
    const cellfleet::View<std::uint16_t> scratch{distance.data(), distance.shape(0), distance.shape(1)};
    count = cellfleet::cut_objects(view(foreground), scratch, settings, labels);
  }
  return nb::make_tuple(image, count);
}

template <class T>
Column<T> column(std::vector<T>&& values) {
  auto kept = std::make_unique<std::vector<T>>(std::move(values));
  T* data = kept->data();
  const std::size_t n = kept->size();
  nb::capsule owner(kept.get(), [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  static_cast<void>(kept.release());
  return Column<T>(data, {n}, owner);
}

template <class T>
nb::dict py_measure(const In<std::uint32_t>& labels, std::uint32_t count, const In<T>& intensity,
                    const In<std::uint16_t>& foreground) {
  cellfleet::Measurements m;
  {
    nb::gil_scoped_release free;
    m = cellfleet::measure(view(labels), count, view(intensity), view(foreground));
  }
  nb::dict out;
  out["area_px"] = column(std::move(m.area_px));
  out["centroid_y"] = column(std::move(m.centroid_y));
  out["centroid_x"] = column(std::move(m.centroid_x));
  out["bbox_y0"] = column(std::move(m.bbox_y0));
  out["bbox_x0"] = column(std::move(m.bbox_x0));
  out["bbox_y1"] = column(std::move(m.bbox_y1));
  out["bbox_x1"] = column(std::move(m.bbox_x1));
  out["eccentricity"] = column(std::move(m.eccentricity));
  out["mean_intensity"] = column(std::move(m.mean_intensity));
  out["mean_probability"] = column(std::move(m.mean_probability));
  return out;
}

}  // namespace

NB_MODULE(_kernels, m) {
  m.doc() = "The hot kernels of cellfleet; arrays are C-contiguous, and the interpreter lock is released.";
  m.def("moments", &py_moments<std::uint8_t>, "pixels"_a.noconvert());
  m.def("moments", &py_moments<std::uint16_t>, "pixels"_a.noconvert());
  m.def("resample", &py_resample<std::uint8_t>, "pixels"_a.noconvert(), "height"_a, "width"_a);
  m.def("resample", &py_resample<std::uint16_t>, "pixels"_a.noconvert(), "height"_a, "width"_a);
  m.def("quantise", &py_quantise, "p"_a.noconvert());
  m.def("objects", &py_objects, "foreground"_a.noconvert(), "distance"_a.noconvert(), nb::kw_only(),
        "foreground_threshold"_a, "seed_threshold"_a, "smooth_passes"_a, "min_seed_area"_a, "min_area"_a);
  m.def("measure", &py_measure<std::uint8_t>, "labels"_a.noconvert(), "count"_a, "intensity"_a.noconvert(),
        "foreground"_a.noconvert());
  m.def("measure", &py_measure<std::uint16_t>, "labels"_a.noconvert(), "count"_a, "intensity"_a.noconvert(),
        "foreground"_a.noconvert());
}

#include "cellfleet/measure.h"

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "arrays.h"
#include "bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace cellfleet::python {
namespace {

template <class T>
using Column = nb::ndarray<nb::numpy, T, nb::ndim<1>>;

template <class T>
Column<T> column(std::vector<T>&& values) {
  auto kept = std::make_unique<std::vector<T>>(std::move(values));
  T* data = kept->data();
  const std::size_t n = kept->size();
  const nb::capsule owner(kept.get(), [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  static_cast<void>(kept.release());
  return Column<T>(data, {n}, owner);
}

template <class T>
nb::dict measured(const In<std::uint32_t>& labels, std::uint32_t count, const In<T>& intensity,
                  const In<std::uint16_t>& foreground) {
  Measurements m;
  {
    const nb::gil_scoped_release free;
    m = measure(view(labels), count, view(intensity), view(foreground));
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

void bind_measure(nb::module_& m) {
  m.def("measure", &measured<std::uint8_t>, "labels"_a.noconvert(), "count"_a, "intensity"_a.noconvert(),
        "foreground"_a.noconvert());
  m.def("measure", &measured<std::uint16_t>, "labels"_a.noconvert(), "count"_a, "intensity"_a.noconvert(),
        "foreground"_a.noconvert());
}

}  // namespace cellfleet::python

#include "cellfleet/objects.h"

#include <nanobind/nanobind.h>

#include <cstdint>

#include "arrays.h"
#include "bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace cellfleet::python {
namespace {

nb::tuple objects(const In<std::uint16_t>& foreground, const InOut<std::uint16_t>& distance,
                  std::uint16_t foreground_threshold, std::uint16_t seed_threshold, unsigned smooth_passes,
                  std::uint64_t min_seed_area, std::uint64_t min_area) {
  auto [image, labels] = make_image<std::uint32_t>(foreground.shape(0), foreground.shape(1));
  const ObjectSettings settings{
      .foreground = foreground_threshold,
      .seed = seed_threshold,
      .smooth_passes = smooth_passes,
      .min_seed_area = min_seed_area,
      .min_area = min_area,
  };
  std::uint32_t count = 0;
  {
    const nb::gil_scoped_release free;
    const View<std::uint16_t> scratch{distance.data(), distance.shape(0), distance.shape(1)};
    count = cut_objects(view(foreground), scratch, settings, labels);
  }
  return nb::make_tuple(image, count);
}

}  // namespace

void bind_objects(nb::module_& m) {
  m.def("objects", &objects, "foreground"_a.noconvert(), "distance"_a.noconvert(), nb::kw_only(),
        "foreground_threshold"_a, "seed_threshold"_a, "smooth_passes"_a, "min_seed_area"_a, "min_area"_a);
}

}  // namespace cellfleet::python

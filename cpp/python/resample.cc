#include "cellfleet/resample.h"

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>

#include "arrays.h"
#include "bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace cellfleet::python {
namespace {

template <class T>
Image<T> resampled(const In<T>& pixels, std::size_t height, std::size_t width) {
  auto [image, out] = make_image<T>(height, width);
  {
    const nb::gil_scoped_release free;
    resample(view(pixels), out);
  }
  return image;
}

}  // namespace

void bind_resample(nb::module_& m) {
  m.def("resample", &resampled<std::uint8_t>, "pixels"_a.noconvert(), "height"_a, "width"_a);
  m.def("resample", &resampled<std::uint16_t>, "pixels"_a.noconvert(), "height"_a, "width"_a);
}

}  // namespace cellfleet::python

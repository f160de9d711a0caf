#include "cellfleet/moments.h"

#include <nanobind/nanobind.h>

#include <cstdint>

#include "arrays.h"
#include "bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace cellfleet::python {
namespace {

template <class T>
nb::tuple moments_of(const In<T>& pixels) {
  Moments m{};
  {
    const nb::gil_scoped_release free;
    m = moments(view(pixels));
  }
  return nb::make_tuple(m.mean, m.std);
}

}  // namespace

void bind_moments(nb::module_& m) {
  m.def("moments", &moments_of<std::uint8_t>, "pixels"_a.noconvert());
  m.def("moments", &moments_of<std::uint16_t>, "pixels"_a.noconvert());
}

}  // namespace cellfleet::python

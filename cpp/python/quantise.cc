#include "cellfleet/quantise.h"

#include <nanobind/nanobind.h>

#include <cstdint>

#include "arrays.h"
#include "bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace cellfleet::python {
namespace {

Image<std::uint16_t> quantised(const In<float>& p) {
  auto [image, out] = make_image<std::uint16_t>(p.shape(0), p.shape(1));
  {
    const nb::gil_scoped_release free;
    quantise(view(p), out);
  }
  return image;
}

}  // namespace

void bind_quantise(nb::module_& m) { m.def("quantise", &quantised, "p"_a.noconvert()); }

}  // namespace cellfleet::python

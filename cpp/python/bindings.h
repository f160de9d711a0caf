// The parts of the module: one function for each binding file of this folder.
#pragma once

#include <nanobind/nanobind.h>

namespace cellfleet::python {

void bind_measure(nanobind::module_& m);
void bind_moments(nanobind::module_& m);
void bind_objects(nanobind::module_& m);
void bind_quantise(nanobind::module_& m);
void bind_resample(nanobind::module_& m);

}  // namespace cellfleet::python

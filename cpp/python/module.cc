// The Python module cellfleet._kernels; src/cellfleet/_kernels.pyi is its description.
#include <nanobind/nanobind.h>

#include "bindings.h"

NB_MODULE(_kernels, m) {
  m.doc() = "The hot kernels of cellfleet; arrays are C-contiguous, and the interpreter lock is released.";
  cellfleet::python::bind_measure(m);
  cellfleet::python::bind_moments(m);
  cellfleet::python::bind_objects(m);
  cellfleet::python::bind_quantise(m);
  cellfleet::python::bind_resample(m);
}

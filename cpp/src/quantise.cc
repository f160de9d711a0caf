#include "cellfleet/quantise.h"

#include <algorithm>
#include <stdexcept>

namespace cellfleet {

void quantise(View<const float> p, View<std::uint16_t> out) {
  if (p.height != out.height || p.width != out.width) throw std::invalid_argument("the maps differ in shape");
  bool numbers = true;
  const std::size_t n = p.size();
  for (std::size_t i = 0; i < n; ++i) {
    const float v = p.data[i];
    numbers = numbers && v == v;  // NaN differs from itself
    // Clamped before the cast, which is undefined outside the range, and is the floor of what is not negative.
    const float scaled = std::min(std::max(v * 65535.0F + 0.5F, 0.0F), 65535.0F);
    out.data[i] = static_cast<std::uint16_t>(v == v ? scaled : 0.0F);
  }
  if (!numbers) throw std::invalid_argument("the map holds values that are not numbers (NaN)");
}

}  // namespace cellfleet

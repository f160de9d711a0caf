#include "cellfleet/objects.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <vector>

namespace cellfleet {
namespace steps {

void smooth(View<std::uint16_t> map) {
  const std::size_t w = map.width;
  // Row sums of the row above, this one and the one below; a row is overwritten once its own sums are taken.
  std::vector<std::uint32_t> above(w);
  std::vector<std::uint32_t> here(w);
  std::vector<std::uint32_t> below(w);
  const auto sums = [w](const std::uint16_t* row, std::vector<std::uint32_t>& out) {
    out[0] = 3U * row[0] + row[std::min<std::size_t>(1, w - 1)];
    for (std::size_t x = 1; x + 1 < w; ++x) out[x] = row[x - 1] + 2U * row[x] + row[x + 1];
    if (w > 1) out[w - 1] = row[w - 2] + 3U * row[w - 1];
  };
  sums(map.row(0), here);
  above = here;
  for (std::size_t y = 0; y < map.height; ++y) {
    if (y + 1 < map.height) {
      sums(map.row(y + 1), below);
    } else {
      below = here;
    }
    std::uint16_t* row = map.row(y);
    for (std::size_t x = 0; x < w; ++x) {
      row[x] = static_cast<std::uint16_t>((above[x] + 2 * here[x] + below[x] + 8) >> 4);
    }
    std::swap(above, here);
    std::swap(here, below);
  }
}

namespace {

// Disjoint sets of provisional labels; the root of a set is its least label, and labels are given in raster order, so
// the order of the roots is the raster order of the components' first pixels.
class Sets {
 public:
  std::uint32_t make() {
    parent_.push_back(static_cast<std::uint32_t>(parent_.size()));
    return parent_.back();
  }
  std::uint32_t find(std::uint32_t a) {
    while (parent_[a] != a) {
      parent_[a] = parent_[parent_[a]];
      a = parent_[a];
    }
    return a;
  }
  std::uint32_t join(std::uint32_t a, std::uint32_t b) {
    a = find(a);
    b = find(b);
    if (a == b) return a;
    if (b < a) std::swap(a, b);
    parent_[b] = a;
    return a;
  }
  // The set of two labels; 0 is no label.
  std::uint32_t meet(std::uint32_t a, std::uint32_t b) {
    if (a == 0 || b == 0) return std::max(a, b);
    return join(a, b);
  }
  [[nodiscard]] std::size_t size() const { return parent_.size(); }

 private:
  std::vector<std::uint32_t> parent_ = {0};
};

// Joins a label with those of the N, NW and NE neighbours of column x; `up` is the row above.
std::uint32_t meet_above(const std::uint32_t* up, std::size_t x, std::size_t width, std::uint32_t label, Sets& sets) {
  if (up[x] != 0) return sets.meet(label, up[x]);  // N touches NW and NE, so they are joined already
  if (x > 0) label = sets.meet(label, up[x - 1]);
  return x + 1 < width ? sets.meet(label, up[x + 1]) : label;
}

// First scan: every seed pixel gets a provisional label joined with those of its W, NW, N and NE neighbours.
void scan_seeds(View<const std::uint16_t> foreground, View<const std::uint16_t> distance, const ObjectSettings& s,
                View<std::uint32_t> labels, Sets& sets) {
  for (std::size_t y = 0; y < labels.height; ++y) {
    std::uint32_t* row = labels.row(y);
    const std::uint32_t* up = y > 0 ? labels.row(y - 1) : nullptr;
    const std::uint16_t* f = foreground.row(y);
    const std::uint16_t* d = distance.row(y);
    for (std::size_t x = 0; x < labels.width; ++x) {
      if (f[x] < s.foreground || d[x] < s.seed) {
        row[x] = 0;
        continue;
      }
      std::uint32_t label = x > 0 ? row[x - 1] : 0;
      if (up != nullptr) label = meet_above(up, x, labels.width, label, sets);
      row[x] = label != 0 ? label : sets.make();
    }
  }
}

}  // namespace

std::uint32_t find_seeds(View<const std::uint16_t> foreground, View<const std::uint16_t> distance,
                         const ObjectSettings& settings, View<std::uint32_t> labels) {
  Sets sets;
  scan_seeds(foreground, distance, settings, labels, sets);
  std::vector<std::uint32_t> area(sets.size());
  const std::size_t n = labels.size();
  for (std::size_t i = 0; i < n; ++i) {
    if (labels.data[i] != 0) ++area[labels.data[i] = sets.find(labels.data[i])];
  }
  // The areas become the final numbers: 0 for what is dropped.
  std::uint32_t count = 0;
  for (std::uint32_t& a : area) a = a > 0 && a >= settings.min_seed_area ? ++count : 0;
  for (std::size_t i = 0; i < n; ++i) labels.data[i] = area[labels.data[i]];
  return count;
}

namespace {

// Shortest paths from all seeds at once, by length (Dial's buckets).
class Growth {
 public:
  static constexpr std::uint32_t far = std::numeric_limits<std::uint16_t>::max();

  Growth(View<const std::uint16_t> foreground, std::uint16_t threshold, View<std::uint16_t> lengths,
         View<std::uint32_t> labels)
      : foreground_(foreground), threshold_(threshold), lengths_(lengths), labels_(labels), queue_(buckets) {}

  // Offers a pixel's label to its eight neighbours.
  void spread(std::size_t i, std::uint32_t d) {
    const std::size_t w = labels_.width;
    const std::size_t y = i / w;
    const std::size_t x = i % w;
    if (x > 0) relax(i, i - 1, d + straight);
    if (x + 1 < w) relax(i, i + 1, d + straight);
    if (y > 0) spread_row(i, i - w, x, d);
    if (y + 1 < labels_.height) spread_row(i, i + w, x, d);
  }

  // Spreads from what waits, the shortest paths first, until nothing waits.
  void run() {
    std::vector<std::uint32_t> now;
    for (std::uint32_t d = 1; waiting_ > 0; ++d) {
      now.clear();
      std::swap(now, queue_[d % buckets]);
      waiting_ -= now.size();
      for (const std::uint32_t i : now) {
        if (lengths_.data[i] == d) spread(i, d);  // else a shorter way was found since
      }
    }
  }

 private:
  static constexpr std::uint32_t straight = 5;
  static constexpr std::uint32_t diagonal = 7;
  static constexpr std::size_t buckets = 8;  // more than the longest step

  void spread_row(std::size_t i, std::size_t middle, std::size_t x, std::uint32_t d) {
    relax(i, middle, d + straight);
    if (x > 0) relax(i, middle - 1, d + diagonal);
    if (x + 1 < labels_.width) relax(i, middle + 1, d + diagonal);
  }

  void relax(std::size_t from, std::size_t to, std::uint32_t length) {
    if (foreground_.data[to] < threshold_) return;
    std::uint16_t& best = lengths_.data[to];  // at most `far`, which no path is given
    if (length < best) {
      best = static_cast<std::uint16_t>(length);
      labels_.data[to] = labels_.data[from];
      queue_[length % buckets].push_back(static_cast<std::uint32_t>(to));
      ++waiting_;
    } else if (length == best && labels_.data[from] < labels_.data[to]) {
      labels_.data[to] = labels_.data[from];  // `to` waits in the queue with this very length
    }
  }

  View<const std::uint16_t> foreground_;
  std::uint16_t threshold_;
  View<std::uint16_t> lengths_;
  View<std::uint32_t> labels_;
  std::vector<std::vector<std::uint32_t>> queue_;
  std::size_t waiting_ = 0;
};

}  // namespace

void grow(View<const std::uint16_t> foreground, std::uint16_t threshold, View<std::uint16_t> scratch,
          View<std::uint32_t> labels) {
  const std::size_t n = labels.size();
  for (std::size_t i = 0; i < n; ++i) scratch.data[i] = labels.data[i] != 0 ? 0 : std::uint16_t{Growth::far};
  Growth growth(foreground, threshold, scratch, labels);
  // Seeds have length 0 and never change; pixels reached from them wait at 5 or 7.
  for (std::size_t i = 0; i < n; ++i) {
    if (scratch.data[i] == 0) growth.spread(i, 0);
  }
  growth.run();
}

void drop_small(std::uint64_t min_area, std::uint32_t count, View<std::uint32_t> labels) {
  std::vector<std::uint64_t> area(std::size_t{count} + 1);
  const std::size_t n = labels.size();
  for (std::size_t i = 0; i < n; ++i) ++area[labels.data[i]];
  if (std::all_of(area.begin() + 1, area.end(), [=](std::uint64_t a) { return a >= min_area; })) return;
  for (std::size_t i = 0; i < n; ++i) {
    if (area[labels.data[i]] < min_area) labels.data[i] = 0;
  }
}

namespace {

struct Span {
  std::uint32_t y;
  std::uint32_t begin;
  std::uint32_t end;
};

// Walks over 4-connected components of background, span by span.
class Background {
 public:
  Background(View<std::uint16_t> seen, View<std::uint32_t> labels) : seen_(seen), labels_(labels) {}

  // The one label around the component that holds the unseen background pixel (y, x), or 0 when there is no such label.
  std::uint32_t walk(std::uint32_t y, std::uint32_t x) {
    around_ = 0;
    open_ = false;
    spans_.clear();
    push(y, x);
    while (!stack_.empty()) {
      const Span s = stack_.back();
      stack_.pop_back();
      if (!open_) spans_.push_back(s);
      if (s.y == 0 || s.y + 1 == labels_.height || s.begin == 0 || s.end == labels_.width) open_ = true;
      if (s.begin > 0) meet(labels_.row(s.y)[s.begin - 1]);
      if (s.end < labels_.width) meet(labels_.row(s.y)[s.end]);
      if (s.y > 0) look(s.y - 1, s);
      if (s.y + 1 < labels_.height) look(s.y + 1, s);
    }
    return open_ ? 0 : around_;
  }

  void give(std::uint32_t label) {
    for (const Span& s : spans_) std::fill(labels_.row(s.y) + s.begin, labels_.row(s.y) + s.end, label);
  }

 private:
  void meet(std::uint32_t label) {
    if (label == 0) return;
    if (around_ == 0) around_ = label;
    if (around_ != label) open_ = true;
  }

  // Takes the whole span of background around (y, x).
  void push(std::uint32_t y, std::uint32_t x) {
    const std::uint32_t* row = labels_.row(y);
    std::uint32_t begin = x;
    std::uint32_t end = x + 1;
    while (begin > 0 && row[begin - 1] == 0) --begin;
    while (end < labels_.width && row[end] == 0) ++end;
    std::fill(seen_.row(y) + begin, seen_.row(y) + end, std::uint16_t{1});
    stack_.push_back({y, begin, end});
  }

  // The row above or below a span, with its diagonal neighbours.
  void look(std::uint32_t y, const Span& s) {
    const std::uint32_t* row = labels_.row(y);
    const std::uint16_t* seen = seen_.row(y);
    const std::uint32_t first = s.begin > 0 ? s.begin - 1 : 0;
    const std::uint32_t last = s.end < labels_.width ? s.end + 1 : s.end;
    for (std::uint32_t x = first; x < last; ++x) {
      if (row[x] != 0) {
        meet(row[x]);
      } else if (seen[x] == 0 && x >= s.begin && x < s.end) {
        push(y, x);
      }
    }
  }

  View<std::uint16_t> seen_;
  View<std::uint32_t> labels_;
  std::vector<Span> stack_;
  std::vector<Span> spans_;
  std::uint32_t around_ = 0;
  bool open_ = false;
};

}  // namespace

void fill_holes(View<std::uint16_t> scratch, View<std::uint32_t> labels) {
  std::fill(scratch.data, scratch.data + scratch.size(), std::uint16_t{0});
  Background background(scratch, labels);
  for (std::uint32_t y = 0; y < labels.height; ++y) {
    const std::uint32_t* row = labels.row(y);
    const std::uint16_t* seen = scratch.row(y);
    for (std::uint32_t x = 0; x < labels.width; ++x) {
      if (row[x] != 0 || seen[x] != 0) continue;
      const std::uint32_t label = background.walk(y, x);
      if (label != 0) background.give(label);
    }
  }
}

std::uint32_t renumber(std::uint32_t count, View<std::uint32_t> labels) {
  std::vector<std::uint32_t> number(std::size_t{count} + 1);
  std::uint32_t next = 0;
  const std::size_t n = labels.size();
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t label = labels.data[i];
    if (label == 0) continue;
    if (number[label] == 0) number[label] = ++next;
    labels.data[i] = number[label];
  }
  return next;
}

}  // namespace steps

std::uint32_t cut_objects(View<const std::uint16_t> foreground, View<std::uint16_t> distance,
                          const ObjectSettings& settings, View<std::uint32_t> labels) {
  const bool same = foreground.height == distance.height && foreground.width == distance.width &&
                    foreground.height == labels.height && foreground.width == labels.width;
  if (!same) throw std::invalid_argument("the maps differ in shape");
  if (labels.size() == 0) throw std::invalid_argument("the maps have no pixels");
  constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
  if (labels.size() >= most) throw std::invalid_argument("2^32 - 1 or more pixels");
  for (unsigned i = 0; i < settings.smooth_passes; ++i) steps::smooth(distance);
  const std::uint32_t seeds = steps::find_seeds(foreground, distance, settings, labels);
  steps::grow(foreground, settings.foreground, distance, labels);
  steps::drop_small(settings.min_area, seeds, labels);
  steps::fill_holes(distance, labels);
  return steps::renumber(seeds, labels);
}

}  // namespace cellfleet

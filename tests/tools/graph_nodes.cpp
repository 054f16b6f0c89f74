// Writes the graph that stands behind MLX arrays, node by node: name, output shapes and item sizes, input ids.
// export_to_dot() gives no shapes, and export_function() takes no custom functions; hence this, through MLX's headers.
#include <cstdio>
#include <unordered_set>
#include "mlx/array.h"
#include "mlx/primitives.h"

using mlx::core::array;

static void print_array(FILE* out, const array& a) {
  std::fprintf(out, "[%zu,%d,[", static_cast<size_t>(a.id()), static_cast<int>(a.itemsize()));
  for (size_t i = 0; i < a.ndim(); i++) std::fprintf(out, i ? ",%d" : "%d", a.shape(i));
  std::fprintf(out, "]]");
}

static void print_arrays(FILE* out, const std::vector<array>& arrays) {
  std::fputc('[', out);
  for (size_t i = 0; i < arrays.size(); i++) {
    if (i) std::fputc(',', out);
    print_array(out, arrays[i]);
  }
  std::fputc(']', out);
}

static void visit(FILE* out, const array& a, std::unordered_set<size_t>& seen) {
  if (!a.has_primitive() || !seen.insert(a.id()).second) return;
  for (auto& sibling : a.siblings()) seen.insert(sibling.id());
  for (auto& input : a.inputs()) visit(out, input, seen);
  std::fprintf(out, "[\"%s\",", a.primitive().name());
  print_arrays(out, a.inputs());
  std::fputc(',', out);
  print_arrays(out, a.outputs());
  std::fputs("]\n", out);
}

extern "C" void write_graph(const char* path, const array* a) {
  std::unordered_set<size_t> seen;
  FILE* out = std::fopen(path, "w");
  visit(out, *a, seen);
  std::fclose(out);
}

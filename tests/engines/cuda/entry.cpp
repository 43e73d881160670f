// C entry points, for ctypes, that launch the kernels of kernels.cu under cpu_shim.h as a driver does:
// by name, with an array of pointers to the arguments.
#include <cstring>
#include <utility>

#include "cpu_shim.h"
#include KERNELS

template <typename T> constexpr char code = '?';       // a structure, by value
template <> constexpr char code<const float*> = 'r';  // reads floats
template <> constexpr char code<float*> = 'w';        // writes floats
template <> constexpr char code<const int*> = 'c';    // reads ints
template <> constexpr char code<int*> = 'n';          // writes ints
template <> constexpr char code<const bool*> = 'b';   // reads truth values
template <> constexpr char code<int> = 'i';
template <> constexpr char code<long long> = 'l';
template <> constexpr char code<float> = 'f';
template <> constexpr char code<const double*> = 'R';
template <> constexpr char code<double*> = 'W';
template <> constexpr char code<double> = 'd';

template <auto kernel> struct Launcher;
template <typename... P, void (*kernel)(P...)> struct Launcher<kernel> {
  static constexpr char codes[] = {code<P>..., 0};

  template <size_t... n> static void call(void** arguments, std::index_sequence<n...>) {
    kernel(*static_cast<P*>(arguments[n])...);
  }
  static void run(void** arguments) { call(arguments, std::index_sequence_for<P...>()); }
};

struct Entry {
  const char *name, *codes;
  void (*run)(void**);
  unsigned cluster;
};

#define ENTRY(kernel) {#kernel, Launcher<kernel>::codes, Launcher<kernel>::run, 1}
#define CLUSTERED(kernel) {#kernel, Launcher<kernel>::codes, Launcher<kernel>::run, CLUSTER}
#ifndef ENTRIES
#define ENTRIES ENTRY(train), ENTRY(place), ENTRY(gradient), ENTRY(sgd), ENTRY(adam)
#endif
static const Entry entries[] = {ENTRIES};

static const Entry* find(const char* name) {
  for (const Entry& entry : entries)
    if (!std::strcmp(entry.name, name)) return &entry;
  return nullptr;
}

extern "C" {

// One letter for each parameter of a kernel; null if there is no such kernel.
const char* parameters(const char* name) {
  const Entry* entry = find(name);
  return entry ? entry->codes : nullptr;
}

// Whether all threads came to their end.
bool launch(const char* name, unsigned blocks, unsigned threads, size_t shared_bytes, unsigned seed,
            void** arguments) {
  const Entry* entry = find(name);
  return sim::launch(blocks, threads, entry->cluster, shared_bytes, seed, entry->run, arguments);
}

}  // extern "C"

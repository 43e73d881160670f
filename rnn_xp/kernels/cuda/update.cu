// What an update in a CUDA graph reads and writes beside its arithmetic: the arguments of a graph never
// change, so the number of the update is on the device, and what differs from one to the next in tables.

constexpr int THREADS = 256, SPAN = 4 * THREADS;  // of a block; words that it copies

struct Line {
  const unsigned* from;  // [updates][pitch], or [words]
  unsigned* to;          // [words]
  long long words;       // of 4 bytes
  long long pitch;       // words between the rows of a table
  long long first;       // block
};
struct LineTable {
  Line of[LINES];
};
static_assert(sizeof(LineTable) == PLAN_LINE_TABLE && SPAN == PLAN_SPAN && THREADS == PLAN_THREADS, "update.py");

extern "C" __global__ void __launch_bounds__(THREADS)
copy(const __grid_constant__ LineTable table, int count, const int* at)  // at: null for no tables
{
  int k = 0;
  while (k + 1 < count && blockIdx.x >= table.of[k + 1].first) ++k;
  const Line& line = table.of[k];
  const unsigned* from = line.from + (at ? *at * line.pitch : 0);
  const long long begin = (blockIdx.x - line.first) * SPAN;
  for (long long i = begin + threadIdx.x; i < begin + SPAN && i < line.words; i += THREADS) line.to[i] = from[i];
}

// The loss of the update and its total weight, and the number of the next one.
extern "C" __global__ void __launch_bounds__(1)
record(const float* value, const float* total, float* values, float* totals, int* at)
{
  values[*at] = *value;
  totals[*at] = *total;
  ++*at;
}

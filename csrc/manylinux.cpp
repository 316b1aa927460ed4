// For wheels alone (FASTGAN_MANYLINUX=1 in setup.py): names that a newer glibc binds to versions which glibc 2.28 lacks, bound to those
// that it has. The linker sends every call of f to __wrap_f (--wrap=f). The older mathematical functions are the same ones, and
// set errno besides.
#define FASTGAN_HIDDEN __attribute__((visibility("hidden")))
#define FASTGAN_OLDER(f, result, parameters, arguments) \
  result older_##f parameters;                          \
  __asm__(".symver older_" #f "," #f "@GLIBC_2.2.5");   \
  FASTGAN_HIDDEN result __wrap_##f parameters { return older_##f arguments; }

extern "C" {
FASTGAN_OLDER(exp, double, (double x), (x))
FASTGAN_OLDER(exp2, double, (double x), (x))
FASTGAN_OLDER(log, double, (double x), (x))
FASTGAN_OLDER(log2, double, (double x), (x))
FASTGAN_OLDER(dlsym, void*, (void* library, const char* name), (library, name))

// Of glibc 2.32. Where it is 0, libstdc++ counts references with atomic operations.
FASTGAN_HIDDEN char __libc_single_threaded = 0;
}

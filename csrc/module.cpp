// An importable module without content: loading it runs the operator registrations of the library it is linked into.
#include <Python.h>

#ifndef FASTGAN_MODULE
#define FASTGAN_MODULE PyInit__C
#endif

extern "C" PyMODINIT_FUNC FASTGAN_MODULE(void) {
  static PyModuleDef module = {PyModuleDef_HEAD_INIT, "fastgan", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}

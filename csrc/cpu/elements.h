// Memory of a tensor whose type is known at run time, to kernels that are compiled for the type of sums alone: 16-bit rows pass
// through buffers (convert.h), so a kernel of its own for each type would be the same code once more.
#pragma once

#include <vector>

#include "check.h"

namespace fastgan {

enum class Stored { as_sums, half, bfloat16 };

// T: the type of sums. A pointer to one type among those that are summed in it.
template <class T>
struct Elements {
  char* data = nullptr;
  Stored type = Stored::as_sums;

  int64_t size() const { return type == Stored::as_sums ? sizeof(T) : 2; }
  explicit operator bool() const { return data != nullptr; }
  Elements operator+(int64_t n) const { return {data + n * size(), type}; }
  // The memory itself where nothing is converted, else null.
  T* direct() const { return type == Stored::as_sums ? reinterpret_cast<T*>(data) : nullptr; }
};

inline Stored stored_type(const Tensor& t) {
  using torch::headeronly::ScalarType;
  return t.scalar_type() == ScalarType::Half ? Stored::half : t.scalar_type() == ScalarType::BFloat16 ? Stored::bfloat16 : Stored::as_sums;
}

// To read from; an empty optional gives null.
template <class T>
Elements<T> elements(const Tensor& t) {
  return {static_cast<char*>(const_cast<void*>(t.const_data_ptr())), stored_type(t)};
}
template <class T>
Elements<T> elements(const std::optional<Tensor>& t) {
  return t ? elements<T>(*t) : Elements<T>{};
}

template <class T>
Elements<T> mutable_elements(Tensor& t) {
  return {static_cast<char*>(t.mutable_data_ptr()), stored_type(t)};
}

// One element at a time, for what is short.
template <class T>
T get(Elements<T> from, int64_t i) {
  if (from.type == Stored::half) return static_cast<T>(reinterpret_cast<const torch::headeronly::Half*>(from.data)[i]);
  if (from.type == Stored::bfloat16) return static_cast<T>(reinterpret_cast<const torch::headeronly::BFloat16*>(from.data)[i]);
  return from.direct()[i];
}
template <class T>
void set(Elements<T> to, int64_t i, T value) {
  if (to.type == Stored::half) reinterpret_cast<torch::headeronly::Half*>(to.data)[i] = static_cast<float>(value);
  else if (to.type == Stored::bfloat16) reinterpret_cast<torch::headeronly::BFloat16*>(to.data)[i] = static_cast<float>(value);
  else to.direct()[i] = value;
}

template <class T>
T rounded_to(Stored type, T value) {
  const Elements<T> memory{reinterpret_cast<char*>(&value), type};
  set(memory, 0, value);
  return get(memory, 0);
}

// The numbers of a vector in the type of sums.
template <class T>
std::vector<T> numbers(const Tensor& vector) {
  const Tensor dense = torch::stable::contiguous(vector);
  std::vector<T> values(dense.numel());
  for (size_t i = 0; i < values.size(); ++i) values[i] = get(elements<T>(dense), i);
  return values;
}

// body(T{}), T the type of sums of x; another type than the four floating-point ones is an error.
template <class Body>
auto with_sums_of(const Tensor& x, const Body& body) {
  using torch::headeronly::ScalarType;
  const ScalarType type = x.scalar_type();
  if (type == ScalarType::Double) return body(double{});
  FASTGAN_CHECK(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16,
                "dtype must be float16, bfloat16, float32 or float64");
  return body(float{});
}

}  // namespace fastgan

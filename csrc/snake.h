// sin^2 and sin of the snake activation t + c sin^2(a t), host and device, for numbers and for vectors of them.
//
// With u = a t / pi and f = u - round(u), which is exact, |f| <= 1/2:
//
//   sin^2(a t)  = sin^2(pi f) = f^2 P(f^2)
//   sin(2 a t)  = sin(2 pi f) = f R(f^2)
//
// P and R interpolate at the Chebyshev points of [0, 1/4]: in exact arithmetic sin^2 is within 2.2e-8 of itself relatively (float;
// double 3e-19), sin within 2.3e-9 absolutely (2e-20). The phase a t carries the rounding of a / pi and of its product with t,
// 1.2e-7 |a t| in float, where sin(a * t) carries half of that. From |u| = 2^23 (2^52) on f is 0.
//
// Included inside a namespace after activation.h, on the CPU once per instruction set: no include guard.

constexpr double kPi = 3.14159265358979323846;

// V: T, or a vector of it. s = f^2.
template <class T, class V>
FASTGAN_HD V square_of_sine(V s) {
  if constexpr (std::is_same_v<T, float>) {
    V p = s * -3.35610865f + 13.0497962f;
    p = p * s - 30.1013995f;
    p = p * s + 42.7271904f;
    p = p * s - 32.469671f;
    return s * (p * s + 9.86960431f);
  } else {
    V p = s * 0.00014634535811786682 - 0.0018810629948578537;
    p = p * s + 0.018188472932155073;
    p = p * s - 0.14100237294484365;
    p = p * s + 0.85719527398085975;
    p = p * s - 3.9517681786638079;
    p = p * s + 13.213128391312958;
    p = p * s - 30.122320685926646;
    p = p * s + 42.728408603346677;
    p = p * s - 32.469697011334145;
    return s * (p * s + 9.8696044010893586);
  }
}

template <class T, class V>
FASTGAN_HD V sine_of_double(V f, V s) {
  if constexpr (std::is_same_v<T, float>) {
    V p = s * 3.23778009f - 14.8995784f;
    p = p * s + 42.0258515f;
    p = p * s - 76.7030056f;
    p = p * s + 81.6051308f;
    p = p * s - 41.3417004f;
    return f * (p * s + 6.2831853f);
  } else {
    V p = s * -7.9927760205951582e-5 + 0.0011255576729681775;
    p = p * s - 0.012029578843325473;
    p = p * s + 0.10422868459969018;
    p = p * s - 0.71812222659209856;
    p = p * s + 3.8199525769455564;
    p = p * s - 15.094642576275903;
    p = p * s + 42.058693944873636;
    p = p * s - 76.705859753060764;
    p = p * s + 81.605249276075046;
    p = p * s - 41.34170224039976;
    return f * (p * s + 6.2831853071795865);
  }
}

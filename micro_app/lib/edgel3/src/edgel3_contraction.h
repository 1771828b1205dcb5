/* Forbids the compiler to contract a * b + c into one operation with a single rounding, from here
 * to the end of the file. With contraction, the result would depend on the processor. Internal to
 * the library.
 *
 * Include this header after all others. GCC does not know the standard's pragma, and it contracts
 * in its own dialects, such as -std=gnu11, which Arduino uses. A multiply-accumulate instruction
 * that rounds twice, after the product and after the sum, remains allowed: its result is the same.
 */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

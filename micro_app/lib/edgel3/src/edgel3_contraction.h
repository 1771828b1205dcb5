/* Keeps the compiler from contracting a * b + c into one operation with one rounding, from here to
 * the end of the file: with it, the bytes would depend on the processor. Internal to the library.
 *
 * To be included behind all other headers. GCC knows nothing of the standard's pragma, and contracts
 * in its own dialects (-std=gnu11, which Arduino asks for); fused or not, a sum of a product stays one
 * instruction where the processor has one that rounds twice.
 */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

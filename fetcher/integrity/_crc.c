/* CRC-64/NVME, CRC-32C and CRC-32: the checksums that object stores publish.

   All three are computed by one piece of code. A CRC of 32 bits with the polynomial P is the CRC of 64 bits with P(x) x^32: the
   remainder of M(x) x^64 by P(x) x^32 is that of M(x) x^32 by P(x), times x^32. The CRCs are reflected, so the highest bit of a
   word is the coefficient of x^0, and the 32 bits of the result are the low half of the word.

   The ways: a table, eight bytes a step, on every machine; products without carry of 64 bits (PCLMULQDQ, PMULL); four of them
   at once (VPCLMULQDQ). All constants are computed from the polynomials when the module is loaded. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the first byte of a message has to be the lowest of a word"
#endif

#define LANES 8

typedef struct {
    const char *name;
    uint64_t reflected;         /* the polynomial without its highest term */
    uint64_t ones;              /* what a CRC begins with, and is combined with at its end */
    uint64_t table[8][256];     /* [k][b]: the remainder of byte b, followed by k zero bytes */
    uint64_t near[2], far[2];   /* the factors for vectors of 128 and of 512 bits */
    uint64_t squares[64];       /* [k]: x^(2^k) */
} Polynomial;

static Polynomial polynomials[] = {
    /* NVM Express Base Specification 2.0, 5.2.1.3.4: 0xAD93D23594C93659, reflected */
    {.name = "crc64nvme", .reflected = 0x9A6C9329AC4BC9B5, .ones = UINT64_MAX},
    /* RFC 3720, 12.1: 0x1EDC6F41, reflected */
    {.name = "crc32c", .reflected = 0x82F63B78, .ones = UINT32_MAX},
    /* RFC 1952, 8: 0x04C11DB7, reflected */
    {.name = "crc32", .reflected = 0xEDB88320, .ones = UINT32_MAX},
};
#define COUNT (sizeof polynomials / sizeof *polynomials)
#define ONE (UINT64_C(1) << 63)

/* ---- Remainders ---- */

static uint64_t times_x(const Polynomial *p, uint64_t a)
{
    return a >> 1 ^ (a & 1 ? p->reflected : 0);
}

static uint64_t product(const Polynomial *p, uint64_t a, uint64_t b)
{
    uint64_t sum = 0;
    for (uint64_t bit = ONE; bit; bit >>= 1, b = times_x(p, b))
        sum ^= a & bit ? b : 0;
    return sum;
}

/* `value`, followed by `zeros` zero bytes. */
static uint64_t shifted(const Polynomial *p, uint64_t value, uint64_t zeros)
{
    for (int k = 3; zeros; k++, zeros >>= 1)     /* a byte is x^(2^3) */
        if (zeros & 1)
            value = product(p, p->squares[k & 63], value);
    return value;
}

static uint64_t power_of_x(const Polynomial *p, int n)
{
    uint64_t power = ONE;
    while (n-- > 0)
        power = times_x(p, power);
    return power;
}

/* What moves the two halves of a vector by so many bits. A product of reflected words is that of the polynomials times x, so
   each factor has an x less. */
static void set_factors(const Polynomial *p, uint64_t factors[2], int bits)
{
    factors[0] = power_of_x(p, bits + 64 - 1);
    factors[1] = power_of_x(p, bits - 1);
}

static void prepare(Polynomial *p)
{
    for (int byte = 0; byte < 256; byte++) {
        uint64_t value = (uint64_t)byte;
        for (int bit = 0; bit < 8; bit++)
            value = times_x(p, value);
        p->table[0][byte] = value;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++)
            p->table[k][byte] = p->table[k - 1][byte] >> 8 ^ p->table[0][p->table[k - 1][byte] & 255];
    p->squares[0] = ONE >> 1;
    for (int k = 1; k < 64; k++)
        p->squares[k] = product(p, p->squares[k - 1], p->squares[k - 1]);
    set_factors(p, p->near, LANES * 128);
    set_factors(p, p->far, LANES * 512);
}

/* ---- The ways ---- */

typedef uint64_t (*Way)(const Polynomial *p, uint64_t state, const uint8_t *data, size_t length);

static uint64_t by_table(const Polynomial *p, uint64_t state, const uint8_t *data, size_t length)
{
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t word, next = 0;
        memcpy(&word, data, 8);
        word ^= state;
        for (int k = 0; k < 8; k++)
            next ^= p->table[7 - k][word >> 8 * k & 255];
        state = next;
    }
    for (; length; data++, length--)
        state = state >> 8 ^ p->table[0][(state ^ *data) & 255];
    return state;
}

typedef uint64_t Block16 __attribute__((vector_size(16)));
typedef uint64_t Block64 __attribute__((vector_size(64)));

#if defined(__x86_64__)
#define FOLD16(a, k) \
    ((Block16)_mm_clmulepi64_si128((__m128i)(a), _mm_loadu_si128((const __m128i *)(k)), 0x00) \
     ^ (Block16)_mm_clmulepi64_si128((__m128i)(a), _mm_loadu_si128((const __m128i *)(k)), 0x11))
#define FOLD64(a, k) \
    ((Block64)_mm512_clmulepi64_epi128((__m512i)(a), _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(k))), 0x00) \
     ^ (Block64)_mm512_clmulepi64_epi128((__m512i)(a), _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(k))), 0x11))

#define NAME by_products
#define TARGET __attribute__((target("pclmul,sse4.1")))
#define Block Block16
#define FOLD FOLD16
#define NEXT by_table
#include "_crc_fold.h"

#define NAME by_four_products
#define TARGET __attribute__((target("vpclmulqdq,avx512f")))
#define Block Block64
#define FOLD FOLD64
#define NEXT by_products
#include "_crc_fold.h"

static Way best(int level)
{
    __builtin_cpu_init();
    if (level >= 2 && __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512f"))
        return by_four_products;
    return level >= 1 && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1") ? by_products : by_table;
}

#elif defined(__aarch64__)
#define FOLD16(a, k) \
    ((Block16)vmull_p64((poly64_t)(a)[0], (poly64_t)(k)[0]) ^ (Block16)vmull_p64((poly64_t)(a)[1], (poly64_t)(k)[1]))

#define NAME by_products
#define TARGET __attribute__((target("+crypto")))
#define Block Block16
#define FOLD FOLD16
#define NEXT by_table
#include "_crc_fold.h"

static Way best(int level)
{
    return level >= 1 && getauxval(AT_HWCAP) & HWCAP_PMULL ? by_products : by_table;
}

#else
static Way best(int level)
{
    (void)level;
    return by_table;
}
#endif

/* One atomic store publishes the way: threads compute without the GIL while another thread chooses. */
static _Atomic(Way) chosen = by_table;

/* ---- Python ---- */

static const Polynomial *named(const char *name)
{
    for (size_t i = 0; i < COUNT; i++)
        if (!strcmp(name, polynomials[i].name))
            return polynomials + i;
    PyErr_Format(PyExc_ValueError, "not a CRC: %s", name);
    return NULL;
}

static PyObject *update(PyObject *Py_UNUSED(module), PyObject *args)
{
    const char *name;
    unsigned long long value;
    Py_buffer data;
    if (!PyArg_ParseTuple(args, "sKy*", &name, &value, &data))
        return NULL;
    const Polynomial *p = named(name);
    if (p) {
        Way way = chosen;
        Py_BEGIN_ALLOW_THREADS
        value = way(p, (value ^ p->ones) & p->ones, data.buf, (size_t)data.len) ^ p->ones;
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    return p ? PyLong_FromUnsignedLongLong(value) : NULL;
}

static PyObject *combine(PyObject *Py_UNUSED(module), PyObject *args)
{
    const char *name;
    unsigned long long first, second, length;
    if (!PyArg_ParseTuple(args, "sKKK", &name, &first, &second, &length))
        return NULL;
    const Polynomial *p = named(name);
    return p ? PyLong_FromUnsignedLongLong((shifted(p, first & p->ones, length) ^ second) & p->ones) : NULL;
}

static PyObject *use_level(PyObject *Py_UNUSED(module), PyObject *level)
{
    long value = PyLong_AsLong(level);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    Way way = best((int)value);
    chosen = way;
    for (int lower = 0;; lower++)
        if (best(lower) == way)
            return PyLong_FromLong(lower);
}

static PyMethodDef functions[] = {
    {"update", update, METH_VARARGS,
     "update(name, value, data): return the CRC `name` of the bytes with the CRC `value`, followed by `data`. The CRC of no\n"
     "bytes is 0. Releases the GIL. Raises ValueError for another name than crc64nvme, crc32c and crc32."},
    {"combine", combine, METH_VARARGS,
     "combine(name, first, second, length): return the CRC of the bytes with the CRC `first`, followed by `length` bytes with\n"
     "the CRC `second`. Raises ValueError as `update`."},
    {"use_level", use_level, METH_O,
     "Choose instructions: 0 baseline, 1 PCLMULQDQ or PMULL, 2 VPCLMULQDQ. Return the level that this machine has."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_crc", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__crc(void)
{
    for (size_t i = 0; i < COUNT; i++)
        prepare(polynomials + i);
    chosen = best(2);
    return PyModule_Create(&definition);
}

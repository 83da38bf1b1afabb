/* SHA-256 (FIPS 180-4) of many streams: each in one 32-bit lane of a vector, or one after the other.

   The state of a stream is eight words, a count and up to 63 bytes of an incomplete block. All methods produce the same state. So a
   stream can switch between any number of lanes and the single path at every call, and can be saved and restored.

   The single path uses OpenSSL if possible (hand-written assembly, SHA extensions): `use_openssl` gets the address of
   SHA256_Update in the libcrypto of this Python. Its context is a public struct that has not changed since 0.9.8. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 64
#define MOST_LANES 16
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
static const uint32_t INITIAL[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

/* ---- The kernels: every width for every instruction set. The fastest of this machine is chosen once. ---- */

#define LIST4(f) f(0), f(1), f(2), f(3)
#define LIST8(f) LIST4(f), f(4), f(5), f(6), f(7)
#define LIST16(f) LIST8(f), f(8), f(9), f(10), f(11), f(12), f(13), f(14), f(15)

typedef void (*Kernel)(uint32_t states[8][MOST_LANES], const uint8_t *const data[], size_t blocks);

#define LANES 4
#define LIST LIST4
#define NAME lanes4
#define TARGET
#include "_sha256_lanes.h"

#if defined(__x86_64__)
#define LANES 4
#define LIST LIST4
#define NAME lanes4_avx2
#define TARGET __attribute__((target("avx2")))
#include "_sha256_lanes.h"

#define LANES 8
#define LIST LIST8
#define NAME lanes8_avx2
#define TARGET __attribute__((target("avx2")))
#include "_sha256_lanes.h"

#define LANES 4
#define LIST LIST4
#define NAME lanes4_avx512
#define TARGET __attribute__((target("avx512f,avx512vl")))
#include "_sha256_lanes.h"

#define LANES 8
#define LIST LIST8
#define NAME lanes8_avx512
#define TARGET __attribute__((target("avx512f,avx512vl")))
#include "_sha256_lanes.h"

#define LANES 16
#define LIST LIST16
#define NAME lanes16_avx512
#define TARGET __attribute__((target("avx512f,avx512vl")))
#include "_sha256_lanes.h"
#endif

/* Complete tables. One atomic store publishes one of them: threads hash without the GIL while another thread chooses. */
typedef struct { Kernel of4, of8, of16; } Kernels;
static const Kernels any_machine = {lanes4, NULL, NULL};
#if defined(__x86_64__)
static const Kernels with_avx2 = {lanes4_avx2, lanes8_avx2, NULL};
static const Kernels with_avx512 = {lanes4_avx512, lanes8_avx512, lanes16_avx512};
#endif
static _Atomic(const Kernels *) chosen = &any_machine;

/* `level`: 0 uses what every machine of the architecture has, 1 also AVX2, 2 also AVX-512. */
static const Kernels *best_kernels(int level)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (level >= 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
        return &with_avx512;
    if (level >= 1 && __builtin_cpu_supports("avx2"))
        return &with_avx2;
#else
    (void)level;
#endif
    return &any_machine;
}

static Kernel kernel_of(const Kernels *kernels, int lanes)
{
    return lanes == 4 ? kernels->of4 : lanes == 8 ? kernels->of8 : lanes == 16 ? kernels->of16 : NULL;
}

/* ---- One stream ---- */

typedef struct { uint32_t h[8], low, high, data[16]; unsigned int num, md_len; } OpensslContext;
typedef int (*OpensslUpdate)(OpensslContext *, const void *, size_t);
static _Atomic(OpensslUpdate) openssl_update;   /* published only after it passed the test of `use_openssl` */

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void by_openssl(OpensslUpdate update, uint32_t state[8], const uint8_t *data, size_t blocks)
{
    OpensslContext context = {.md_len = 32};
    memcpy(context.h, state, sizeof context.h);
    update(&context, data, blocks * BLOCK);
    memcpy(state, context.h, sizeof context.h);
}

static void single(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    OpensslUpdate update = openssl_update;
    if (update) {
        by_openssl(update, state, data, blocks);
        return;
    }
    for (; blocks; blocks--, data += BLOCK) {
        uint32_t w[64], v[8];
        for (int t = 0; t < 16; t++)
            w[t] = (uint32_t)data[4 * t] << 24 | data[4 * t + 1] << 16 | data[4 * t + 2] << 8 | data[4 * t + 3];
        for (int t = 16; t < 64; t++)
            w[t] = w[t - 16] + (rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ w[t - 15] >> 3) + w[t - 7]
                 + (rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ w[t - 2] >> 10);
        memcpy(v, state, sizeof v);
        for (int t = 0; t < 64; t++) {
            uint32_t a = v[0], b = v[1], c = v[2], e = v[4], f = v[5], g = v[6];
            uint32_t t1 = v[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (g ^ (e & (f ^ g))) + K[t] + w[t];
            uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) | (c & (a | b)));
            memmove(v + 1, v, 7 * sizeof *v);
            v[4] += t1, v[0] = t1 + t2;
        }
        for (int k = 0; k < 8; k++)
            state[k] += v[k];
    }
}

/* ---- A running digest ---- */

typedef struct {
    PyObject_HEAD
    uint64_t length;          /* bytes seen */
    uint32_t state[8];
    uint8_t tail[BLOCK];      /* the last `length % BLOCK` of them */
    int busy;                 /* a call without the GIL uses it */
} Sha256;

/* The work on one stream: whole blocks, after its tail became one. */
typedef struct { Sha256 *hasher; const uint8_t *data; size_t blocks, rest; } Job;

static PyObject *sha256_type;

static void begin(Sha256 *hasher, Job *job, const uint8_t *data, size_t length)
{
    size_t held = hasher->length % BLOCK, wanted = held ? BLOCK - held : 0;
    hasher->length += length;
    if (wanted > length)
        wanted = length;
    memcpy(hasher->tail + held, data, wanted);
    if (held + wanted == BLOCK)
        single(hasher->state, hasher->tail, 1);
    data += wanted, length -= wanted;
    *job = (Job){hasher, data, length / BLOCK, length % BLOCK};
}

static void end(Job *job)
{
    /* An incomplete tail already contains all bytes: nothing is left over. */
    memcpy(job->hasher->tail, job->data, job->rest);
}

/* Hash `blocks` of up to `lanes` jobs. Unused lanes repeat the first job, at no extra cost. */
static void together(Job *const jobs[], int count, int lanes, Kernel kernel, size_t blocks)
{
    uint32_t states[8][MOST_LANES] __attribute__((aligned(64)));
    const uint8_t *data[MOST_LANES];
    for (int lane = 0; lane < lanes; lane++) {
        Job *job = jobs[lane < count ? lane : 0];
        data[lane] = job->data;
        for (int k = 0; k < 8; k++)
            states[k][lane] = job->hasher->state[k];
    }
    kernel(states, data, blocks);
    for (int lane = 0; lane < count; lane++) {
        for (int k = 0; k < 8; k++)
            jobs[lane]->hasher->state[k] = states[k][lane];
        jobs[lane]->data += blocks * BLOCK, jobs[lane]->blocks -= blocks;
    }
}

/* Hash all jobs. `widths[n]` is the number of lanes while n jobs (at most 16) have blocks left; 1 means the single path. */
static void run(const Kernels *kernels, Job *jobs, size_t total, const uint8_t widths[MOST_LANES + 1])
{
    for (;;) {
        Job *waiting[MOST_LANES];
        int count = 0;
        size_t blocks = SIZE_MAX;
        for (size_t i = 0; i < total && count < MOST_LANES; i++)
            if (jobs[i].blocks)
                waiting[count++] = jobs + i;
        if (count == 0)
            return;
        int lanes = widths[count];
        if (lanes == 1) {
            single(waiting[0]->hasher->state, waiting[0]->data, waiting[0]->blocks);
            waiting[0]->data += waiting[0]->blocks * BLOCK, waiting[0]->blocks = 0;
            continue;
        }
        if (count > lanes)
            count = lanes;
        for (int i = 0; i < count; i++)
            if (waiting[i]->blocks < blocks)
                blocks = waiting[i]->blocks;
        together(waiting, count, lanes, kernel_of(kernels, lanes), blocks);
    }
}

/* ---- Python ---- */

static PyObject *sha256_new(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    if (PyTuple_Size(args) || (keywords && PyDict_Size(keywords))) {
        PyErr_SetString(PyExc_TypeError, "Sha256() takes no arguments");
        return NULL;
    }
    Sha256 *self = (Sha256 *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self)
        memcpy(self->state, INITIAL, sizeof INITIAL);
    return (PyObject *)self;
}

static void sha256_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static int claim(Sha256 *hasher)
{
    if (hasher->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread advances this digest, or it occurs twice in one call");
        return -1;
    }
    return hasher->busy = 1, 0;
}

static PyObject *sha256_update(PyObject *object, PyObject *data)
{
    Sha256 *self = (Sha256 *)object;
    Py_buffer view;
    if (claim(self))
        return NULL;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)) {
        self->busy = 0;
        return NULL;
    }
    Job job;
    Py_BEGIN_ALLOW_THREADS
    begin(self, &job, view.buf, (size_t)view.len);
    single(self->state, job.data, job.blocks);
    job.data += job.blocks * BLOCK;
    end(&job);
    Py_END_ALLOW_THREADS
    self->busy = 0;
    PyBuffer_Release(&view);
    Py_RETURN_NONE;
}

static PyObject *sha256_hexdigest(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Sha256 *self = (Sha256 *)object;
    if (self->busy)
        return claim(self), NULL;
    uint32_t state[8];
    uint8_t last[2 * BLOCK] = {0};
    char text[65];
    size_t held = self->length % BLOCK, size = held < BLOCK - 8 ? BLOCK : 2 * BLOCK;
    memcpy(state, self->state, sizeof state);
    memcpy(last, self->tail, held);
    last[held] = 0x80;
    for (int i = 0; i < 8; i++)
        last[size - 1 - i] = (uint8_t)(self->length * 8 >> 8 * i);
    single(state, last, size / BLOCK);
    for (int k = 0; k < 8; k++)
        for (int digit = 0; digit < 8; digit++)
            text[8 * k + digit] = "0123456789abcdef"[state[k] >> (28 - 4 * digit) & 15];
    return PyUnicode_FromStringAndSize(text, 64);
}

/* Eight words and the length, big-endian, then the tail: portable between machines. */
#define SAVED (32 + 8)

static PyObject *sha256_save(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Sha256 *self = (Sha256 *)object;
    uint8_t saved[SAVED + BLOCK];
    if (self->busy)
        return claim(self), NULL;
    for (int i = 0; i < 32; i++)
        saved[i] = (uint8_t)(self->state[i / 4] >> (24 - 8 * (i % 4)));
    for (int i = 0; i < 8; i++)
        saved[32 + i] = (uint8_t)(self->length >> (56 - 8 * i));
    memcpy(saved + SAVED, self->tail, self->length % BLOCK);
    return PyBytes_FromStringAndSize((char *)saved, (Py_ssize_t)(SAVED + self->length % BLOCK));
}

static PyObject *sha256_restore(PyObject *type, PyObject *saved)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(saved, &bytes, &size))
        return NULL;
    const uint8_t *from = (const uint8_t *)bytes;
    uint64_t length = 0;
    for (int i = 0; size >= SAVED && i < 8; i++)
        length = length << 8 | from[32 + i];
    if (size < SAVED || size != (Py_ssize_t)(SAVED + length % BLOCK)) {
        PyErr_SetString(PyExc_ValueError, "not a saved SHA-256 state");
        return NULL;
    }
    Sha256 *self = (Sha256 *)PyObject_CallNoArgs(type);
    if (!self)
        return NULL;
    for (int k = 0; k < 8; k++)
        self->state[k] = (uint32_t)from[4 * k] << 24 | from[4 * k + 1] << 16 | from[4 * k + 2] << 8 | from[4 * k + 3];
    self->length = length;
    memcpy(self->tail, from + SAVED, length % BLOCK);
    return (PyObject *)self;
}

static PyObject *sha256_length(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(((Sha256 *)self)->length);
}

static int known_widths(const Kernels *kernels, const uint8_t *widths, Py_ssize_t size)
{
    int known = size == MOST_LANES + 1;
    for (int n = 1; known && n <= MOST_LANES; n++)
        known = widths[n] == 1 || kernel_of(kernels, widths[n]) != NULL;
    if (!known)
        PyErr_SetString(PyExc_ValueError, "widths: 17 bytes, each 1 or a number of lanes that this machine has");
    return known;
}

static PyObject *advance(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *hashers, *buffers;
    const char *widths;
    Py_ssize_t widths_size;
    if (!PyArg_ParseTuple(args, "O!O!y#", &PyTuple_Type, &hashers, &PyTuple_Type, &buffers, &widths, &widths_size))
        return NULL;
    Py_ssize_t total = PyTuple_Size(hashers), claimed = 0, viewed = 0;
    const Kernels *kernels = chosen;
    if (!known_widths(kernels, (const uint8_t *)widths, widths_size))
        return NULL;
    if (PyTuple_Size(buffers) != total) {
        PyErr_SetString(PyExc_ValueError, "the numbers of digests and buffers differ");
        return NULL;
    }
    Job *jobs = PyMem_Calloc((size_t)total + 1, sizeof *jobs);
    Py_buffer *views = PyMem_Calloc((size_t)total + 1, sizeof *views);
    if (!jobs || !views) {
        PyErr_NoMemory();
        goto out;
    }
    for (; claimed < total; claimed++) {
        PyObject *hasher = PyTuple_GetItem(hashers, claimed);
        if (!PyObject_TypeCheck(hasher, (PyTypeObject *)sha256_type)) {
            PyErr_SetString(PyExc_TypeError, "not a Sha256");
            goto out;
        }
        if (claim((Sha256 *)hasher))
            goto out;
        jobs[claimed].hasher = (Sha256 *)hasher;
    }
    for (; viewed < total; viewed++)
        if (PyObject_GetBuffer(PyTuple_GetItem(buffers, viewed), views + viewed, PyBUF_SIMPLE))
            goto out;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < total; i++)
        begin(jobs[i].hasher, jobs + i, views[i].buf, (size_t)views[i].len);
    run(kernels, jobs, (size_t)total, (const uint8_t *)widths);
    for (Py_ssize_t i = 0; i < total; i++)
        end(jobs + i);
    Py_END_ALLOW_THREADS
out:
    while (viewed > 0)
        PyBuffer_Release(views + --viewed);
    while (claimed > 0)
        jobs[--claimed].hasher->busy = 0;
    PyMem_Free(jobs);
    PyMem_Free(views);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *use_openssl(PyObject *Py_UNUSED(module), PyObject *address)
{
    static const uint32_t expected[8] = {   /* of 64 zero bytes, without padding */
        0xda5698be, 0x17b9b469, 0x62335799, 0x779fbeca, 0x8ce5d491, 0xc0d26243, 0xbafef9ea, 0x1837a9d8,
    };
    static const uint8_t zeros[BLOCK];
    uint32_t state[8];
    OpensslUpdate update = (OpensslUpdate)PyLong_AsVoidPtr(address);
    if (PyErr_Occurred())
        return NULL;
    if (update) {
        memcpy(state, INITIAL, sizeof state);
        by_openssl(update, state, zeros, 1);
        if (memcmp(state, expected, sizeof state))
            update = NULL;
    }
    openssl_update = update;
    return PyBool_FromLong(update != NULL);
}

static PyObject *use_level(PyObject *Py_UNUSED(module), PyObject *level)
{
    long value = PyLong_AsLong(level);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    const Kernels *kernels = best_kernels((int)value);
    chosen = kernels;
    return kernels->of16 ? Py_BuildValue("(iii)", 4, 8, 16) : kernels->of8 ? Py_BuildValue("(ii)", 4, 8) : Py_BuildValue("(i)", 4);
}

static PyMethodDef sha256_methods[] = {
    {"update", sha256_update, METH_O, "Hash `data`, an object with the buffer protocol. Releases the GIL."},
    {"hexdigest", sha256_hexdigest, METH_NOARGS, "Return the digest of all bytes so far, 64 hex digits."},
    {"save", sha256_save, METH_NOARGS, "Return the state, for `restore` in another process or on another machine."},
    {"restore", sha256_restore, METH_O | METH_CLASS, "Resume from a state that `save` returned. Raises ValueError."},
    {NULL, NULL, 0, NULL},
};
static PyGetSetDef sha256_fields[] = {
    {"length", sha256_length, NULL, "Bytes hashed so far.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};
static PyType_Slot sha256_slots[] = {
    {Py_tp_doc, "A running SHA-256."},
    {Py_tp_new, sha256_new},
    {Py_tp_dealloc, sha256_dealloc},
    {Py_tp_methods, sha256_methods},
    {Py_tp_getset, sha256_fields},
    {0, NULL},
};
static PyType_Spec sha256_spec = {
    .name = "fetcher.integrity._sha256.Sha256",
    .basicsize = sizeof(Sha256),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = sha256_slots,
};
static PyMethodDef functions[] = {
    {"advance", advance, METH_VARARGS,
     "advance(digests, buffers, widths): hash buffers[i] into digests[i], in lanes; widths[n] is the number of lanes to\n"
     "use while n streams are left. Releases the GIL. Raises RuntimeError for a digest that another call advances."},
    {"use_openssl", use_openssl, METH_O, "Hash single streams with the SHA256_Update at this address, if it passes a test; 0 for none."},
    {"use_level", use_level, METH_O, "Choose instructions: 0 baseline, 1 AVX2, 2 AVX-512. Return the available numbers of lanes."},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_sha256", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__sha256(void)
{
    PyObject *module = PyModule_Create(&definition);
    sha256_type = PyType_FromSpec(&sha256_spec);
    if (!module || !sha256_type || PyModule_AddObjectRef(module, "Sha256", sha256_type))
        return NULL;
    chosen = best_kernels(2);
    return module;
}

/* SHA-256 of LANES streams, one in each 32-bit lane of a vector. Included once for every width and instruction set:

     LANES    4, 8 or 16
     LIST(f)  f(0) to f(LANES - 1), separated by commas: the lane numbers for shuffles
     NAME     of the function
     TARGET   its attribute, which allows instructions that not every machine has

   Written with the vector types of GCC and Clang: one source for SSE2, AVX2, AVX-512 and NEON. */

#define V JOIN(vector, NAME)
typedef uint32_t V __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define ROTATE(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#define LOW(lane) ((lane) & DISTANCE ? LANES + (lane) - DISTANCE : (lane))
#define HIGH(lane) ((lane) & DISTANCE ? LANES + (lane) : (lane) + DISTANCE)

/* Rows into columns by halves: swap the off-diagonal quarters of a square, then of each of its quarters, and so on. */
#define EXCHANGE(rows)                                                           \
    for (int i = 0; i < LANES; i++)                                              \
        if (!(i & DISTANCE)) {                                                   \
            V a = (rows)[i], b = (rows)[i | DISTANCE];                           \
            (rows)[i] = __builtin_shufflevector(a, b, LIST(LOW));                \
            (rows)[i | DISTANCE] = __builtin_shufflevector(a, b, LIST(HIGH));    \
        }

/* `states[k][lane]` is word k of each lane's state; `data[lane]` points to `blocks` blocks of 64 bytes. */
TARGET static void NAME(uint32_t states[8][MOST_LANES], const uint8_t *const data[], size_t blocks)
{
    V state[8];
    for (int k = 0; k < 8; k++)
        state[k] = *(const V *)states[k];
    for (size_t block = 0; block < blocks; block++) {
        V w[16];
        for (int part = 0; part < 16; part += LANES) {
            V *rows = w + part;
            for (int lane = 0; lane < LANES; lane++)
                rows[lane] = *(const V *)(data[lane] + 64 * block + 4 * part);
#if LANES == 16
#define DISTANCE 8
            EXCHANGE(rows)
#undef DISTANCE
#endif
#if LANES >= 8
#define DISTANCE 4
            EXCHANGE(rows)
#undef DISTANCE
#endif
#define DISTANCE 2
            EXCHANGE(rows)
#undef DISTANCE
#define DISTANCE 1
            EXCHANGE(rows)
#undef DISTANCE
        }
        for (int t = 0; t < 16; t++)
            w[t] = w[t] >> 24 | (w[t] >> 8 & 0xff00) | (w[t] << 8 & 0xff0000) | w[t] << 24;
        V a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
#pragma GCC unroll 64
        for (int t = 0; t < 64; t++) {
            if (t >= 16) {
                V s0 = w[(t + 1) & 15], s1 = w[(t + 14) & 15];
                w[t & 15] += (ROTATE(s0, 7) ^ ROTATE(s0, 18) ^ (s0 >> 3)) + w[(t + 9) & 15]
                           + (ROTATE(s1, 17) ^ ROTATE(s1, 19) ^ (s1 >> 10));
            }
            V t1 = h + (ROTATE(e, 6) ^ ROTATE(e, 11) ^ ROTATE(e, 25)) + (g ^ (e & (f ^ g))) + K[t] + w[t & 15];
            V t2 = (ROTATE(a, 2) ^ ROTATE(a, 13) ^ ROTATE(a, 22)) + ((a & b) | (c & (a | b)));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
    for (int k = 0; k < 8; k++)
        *(V *)states[k] = state[k];
}

#undef V
#undef ROTATE
#undef LOW
#undef HIGH
#undef EXCHANGE
#undef LANES
#undef LIST
#undef NAME
#undef TARGET

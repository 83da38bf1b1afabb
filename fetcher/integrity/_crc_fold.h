/* One way to fold, for `_crc.c`. Before each inclusion define NAME, TARGET, Block (a vector of uint64_t), FOLD and NEXT, the way
   that computes what is shorter. */

/* The CRC of `length` bytes after `state`, in blocks of LANES vectors.

   A vector of 128 bits A(x) that lies d bits before another stands for A(x) x^d there. With A = H(x) x^64 + L(x), that is
   H (x^(d+64) mod P) + L (x^d mod P), which is 128 bits again. So each vector is moved onto the one LANES vectors later, and
   what remains at the end is a message of LANES vectors with the same CRC. */
TARGET static uint64_t NAME(const Polynomial *p, uint64_t state, const uint8_t *data, size_t length)
{
    Block sums[LANES], next;
    if (length < 2 * sizeof sums)
        return NEXT(p, state, data, length);
    memcpy(sums, data, sizeof sums);
    sums[0][0] ^= state;
    const uint64_t *factors = sizeof(Block) == 16 ? p->near : p->far;
    for (data += sizeof sums, length -= sizeof sums; length >= sizeof sums; data += sizeof sums, length -= sizeof sums)
        for (int lane = 0; lane < LANES; lane++) {
            memcpy(&next, data + lane * sizeof next, sizeof next);
            sums[lane] = FOLD(sums[lane], factors) ^ next;
        }
    state = NEXT(p, 0, (const uint8_t *)sums, sizeof sums);
    return NEXT(p, state, data, length);
}

#undef NAME
#undef TARGET
#undef Block
#undef FOLD
#undef NEXT

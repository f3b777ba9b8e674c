package bundle

// Combining checksums: with P the polynomial of a CRC whose initial value and final XOR cancel out
// (as those of CRC-32/ISO-HDLC and CRC-64/NVME do),
//
//	crc(A || B) = crc(A) * x^(8*len(B)) mod P  XOR  crc(B)
//
// so a checksum of a whole follows from those of its parts without their bytes. It is the method of
// zlib's crc32_combine (https://github.com/madler/zlib/blob/develop/crc32.c); the parameters are in
// https://reveng.sourceforge.io/crc-catalogue/all.htm. Polynomials are bit-reflected: the highest
// bit is the coefficient of x^0.
const (
	polyCRC32     = 0xedb88320
	polyCRC64NVME = 0x9a6c9329ac4bc9b5
)

// combine32 returns the CRC-32 of A || B, where b is that of B and n is B's length in bytes.
func combine32(a, b uint32, n int64) uint32 {
	const x8 = 1 << (31 - 8)
	for power := uint32(x8); n > 0; n >>= 1 {
		if n&1 != 0 {
			a = multiply32(power, a)
		}
		power = multiply32(power, power)
	}
	return a ^ b
}

// combine64 returns the CRC-64/NVME of A || B, where b is that of B and n is B's length in bytes.
func combine64(a, b uint64, n int64) uint64 {
	const x8 = 1 << (63 - 8)
	for power := uint64(x8); n > 0; n >>= 1 {
		if n&1 != 0 {
			a = multiply64(power, a)
		}
		power = multiply64(power, power)
	}
	return a ^ b
}

// multiply32 returns a*b mod P. Without branches: the bits are as good as random.
func multiply32(a, b uint32) uint32 {
	var product uint32
	for range 32 {
		product ^= b & -(a >> 31)
		a <<= 1
		b = b>>1 ^ polyCRC32&-(b&1)
	}
	return product
}

// multiply64 returns a*b mod P.
func multiply64(a, b uint64) uint64 {
	var product uint64
	for range 64 {
		product ^= b & -(a >> 63)
		a <<= 1
		b = b>>1 ^ polyCRC64NVME&-(b&1)
	}
	return product
}

package human

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 23592960: "22.5 MiB", 11796480: "11.3 MiB", 1<<20 - 1: "1.0 MiB", 1 << 40: "1.0 TiB",
		1<<64 - 1: "16.0 EiB",
	} {
		assert.Equal(t, want, Bytes(n), n)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0", 12: "12", 999: "999", 1000: "1,000", 8192: "8,192", 1234567: "1,234,567", -100: "-100", -1000: "-1,000"} {
		assert.Equal(t, want, Count(n))
	}
}

func TestOthers(t *testing.T) {
	assert.Equal(t, []string{"1234", "12.3", "1.23"}, []string{Rate(1234.4), Rate(12.34), Rate(1.234)})
	assert.Equal(t, []string{"0", "0.00123", "1.20", "1.00e-07"}, []string{Divergence(0), Divergence(0.0012345), Divergence(1.2), Divergence(1e-7)})
	assert.Equal(t, "96.0 %", Percent(0.96))
}

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/hexkv/hexkv/hexkv"
)

func statsText(s hexkv.Stats, replied int) string {
	var b strings.Builder
	writeStats(&b, s, replied)
	return b.String()
}

// A backbone of entries adds up with the others; one of channels lies within all entries and stands apart.
func TestRefinedShares(t *testing.T) {
	s := hexkv.Stats{HEX: true, Entries: 1000, RefinedRing: 900, RefinedHeavy: 40, RefinedStatic: 60}
	assert.Contains(t, statsText(s, 0), "refined  100.0 % of the entries: recent and sinks 90.0 %, heavy hitters 4.0 %, backbone 6.0 %\n")
	s.RefinedHeavy, s.Channels = 100, true
	assert.Contains(t, statsText(s, 0), "refined  100.0 % of the entries: recent and sinks 90.0 %, heavy hitters 10.0 %; "+
		"backbone 6.0 % of the channels of every entry\n")
}

// A prompt of one token is decoded as a token of a reply is.
func TestPromptOfOneToken(t *testing.T) {
	assert.Contains(t, statsText(hexkv.Stats{DecodeTokens: 4}, 4), "prompt   1 token, timed with the reply\n")
	assert.NotContains(t, statsText(hexkv.Stats{PrefillTokens: 2, DecodeTokens: 4}, 4), "timed with")
}

// What a stock cache would take is what info prints for it, though the bits per element are rounded.
func TestStockBytes(t *testing.T) {
	const elements = 512 * 30 * 3 * 64 * 2
	for kv := uint64(2_800_000); kv < 2_900_000; kv += 997 {
		line := cacheLine(hexkv.Stats{KV: kv, BitsPerElement: 8 * float64(kv) / elements})
		assert.Contains(t, line, "(f16 11.3 MiB, q8_0 6.0 MiB, q4_0 3.2 MiB)")
	}
}

// What GPUs hold is shown where there are any, by tier.
func TestGPUBytes(t *testing.T) {
	const mib = 1 << 20
	s := hexkv.Stats{BaseK: 40 * mib, BaseV: 20 * mib, Refined: 30 * mib, State: 10 * mib, KV: 100 * mib, Compute: 60 * mib}
	assert.NotContains(t, statsText(s, 0), "host")
	s.GPUs = []hexkv.GPU{{Name: "CUDA0", KV: 50 * mib, Compute: 40 * mib}, {Name: "CUDA1", KV: 50 * mib, Compute: 20 * mib}}
	assert.Contains(t, statsText(s, 0), "tiers    base K 40.0 MiB, base V 20.0 MiB, refined 30.0 MiB, state 10.0 MiB\n"+
		"CUDA0    90.0 MiB: base K 20.0 MiB, base V 10.0 MiB, refined 15.0 MiB, state 5.0 MiB (by its share of 50.0 %), buffers 40.0 MiB\n"+
		"CUDA1    70.0 MiB: base K 20.0 MiB, base V 10.0 MiB, refined 15.0 MiB, state 5.0 MiB (by its share of 50.0 %), buffers 20.0 MiB\n")
	assert.NotContains(t, statsText(s, 0), "host")
	s.GPUs = []hexkv.GPU{{Name: "CUDA0", KV: 100 * mib, Compute: 40 * mib}} // all of it, so no share
	assert.Contains(t, statsText(s, 0), "CUDA0    140.0 MiB: base K 40.0 MiB, base V 20.0 MiB, refined 30.0 MiB, state 10.0 MiB, buffers 40.0 MiB\n")
	s.GPUs = []hexkv.GPU{{Name: "CUDA0", Compute: 40 * mib}} // --no-kv-offload
	assert.Contains(t, statsText(s, 0), "CUDA0    40.0 MiB, buffers 40.0 MiB\nhost     100.0 MiB of the cache\n")
}

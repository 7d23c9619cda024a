package hexkv

import (
	"time"

	"github.com/hexkv/hexkv/binding"
)

// Stats says what a session holds and did.
type Stats struct {
	ContextSize int // cells
	Used        int // cells in use
	HEX         bool

	BaseK, BaseV   uint64 // bytes of base codes
	Refined        uint64 // bytes of refinements
	State          uint64 // bytes of maps, scores and means
	KV             uint64 // sum of the four: bytes allocated for the cache
	Compute        uint64 // bytes of compute buffers
	Output         uint64 // bytes of logits
	BitsPerElement float64
	GPUs           []GPU // what they hold of KV and Compute; the rest is in main memory

	// Refined entries, each one (layer, KV head, cell), by the reason they are refined; Entries are all in use.
	RefinedRing, RefinedHeavy, RefinedStatic, Entries uint64

	// Channels says that the backbone refines single channels of every entry, refined or not: then RefinedStatic is
	// their share of all values times Entries, and no number of entries.
	Channels bool

	PrefillTokens int // decoded more than one at a time
	PrefillTime   time.Duration
	DecodeTokens  int // decoded one at a time
	DecodeTime    time.Duration
}

// GPU says what one device holds of a session, in bytes. It is measured; what it holds of each tier is not, and is the
// share KV/Stats.KV of the tier where layers are alike.
type GPU struct {
	Name        string
	KV, Compute uint64
}

func statsOf(b binding.Stats) Stats {
	var gpus []GPU
	for _, g := range b.GPUs {
		gpus = append(gpus, GPU(g))
	}
	return Stats{
		ContextSize: b.Ctx, Used: b.Used, HEX: b.HEX,
		BaseK: b.BaseK, BaseV: b.BaseV, Refined: b.Refined, State: b.State, KV: b.KV, Compute: b.Compute, Output: b.Output,
		BitsPerElement: b.BitsPerElement, GPUs: gpus,
		RefinedRing: b.RefinedRing, RefinedHeavy: b.RefinedHeavy, RefinedStatic: b.RefinedStatic, Entries: b.Entries,
		PrefillTokens: int(b.PrefillTokens), PrefillTime: time.Duration(b.PrefillUs) * time.Microsecond,
		DecodeTokens: int(b.DecodeTokens), DecodeTime: time.Duration(b.DecodeUs) * time.Microsecond,
	}
}

// PrefillRate returns tokens per second, 0 before the first prompt.
func (s Stats) PrefillRate() float64 { return rate(s.PrefillTokens, s.PrefillTime) }

// DecodeRate returns tokens per second, 0 before the first token.
func (s Stats) DecodeRate() float64 { return rate(s.DecodeTokens, s.DecodeTime) }

func rate(n int, t time.Duration) float64 {
	if t <= 0 {
		return 0
	}
	return float64(n) / t.Seconds()
}

// RefinedEntries returns the refined entries of all kinds, each one counted once.
func (s Stats) RefinedEntries() uint64 {
	if s.Channels {
		return s.RefinedRing + s.RefinedHeavy
	}
	return s.RefinedRing + s.RefinedHeavy + s.RefinedStatic
}

// MemoryEstimate says what a session will take, in bytes.
type MemoryEstimate struct {
	ContextSize    int // tokens, after rounding
	BaseK, BaseV   uint64
	Refined        uint64
	State          uint64
	KV             uint64 // sum of the four
	Compute        uint64
	Output         uint64
	Total          uint64 // without the model
	Model          uint64
	Available      uint64 // free now; 0 = unknown
	KVF16          uint64 // what a stock f16 cache would take
	KVQ8_0         uint64
	KVQ4_0         uint64
	BitsPerElement float64
}

package hexkv

import "time"

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

	// Refined entries, each one (layer, KV head, cell), by the reason they are refined; Entries are all in use.
	RefinedRing, RefinedHeavy, RefinedStatic, Entries uint64

	PrefillTokens int // decoded more than one at a time
	PrefillTime   time.Duration
	DecodeTokens  int // decoded one at a time
	DecodeTime    time.Duration
}

// PrefillRate returns tokens per second, 0 before the first prompt.
func (s Stats) PrefillRate() float64 { panic("unimplemented") }

// DecodeRate returns tokens per second, 0 before the first token.
func (s Stats) DecodeRate() float64 { panic("unimplemented") }

// RefinedEntries returns the refined entries of all kinds.
func (s Stats) RefinedEntries() uint64 { return s.RefinedRing + s.RefinedHeavy + s.RefinedStatic }

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
	Available      uint64 // free now
	KVF16          uint64 // what a stock f16 cache would take
	KVQ8_0         uint64
	KVQ4_0         uint64
	BitsPerElement float64
}

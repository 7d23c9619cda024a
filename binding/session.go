package binding

// #include "hexkv.h"
import "C"

import "unsafe"

// Session is a hexkv_session handle.
type Session struct{ p *C.hexkv_session }

// SessionParams is hexkv_session_params.
type SessionParams struct {
	Ctx, Batch, UBatch, Threads int32
	AllLogits, KVOnHost         bool
	Cache                       Cache
}

func (p *SessionParams) c() C.hexkv_session_params {
	return C.hexkv_session_params{
		n_ctx: C.int32_t(p.Ctx), n_batch: C.int32_t(p.Batch), n_ubatch: C.int32_t(p.UBatch), n_threads: C.int32_t(p.Threads),
		n_seq: 1, all_logits: C.bool(p.AllLogits), kv_on_host: C.bool(p.KVOnHost), cache: p.Cache.c(),
	}
}

// Estimate is hexkv_estimate.
type Estimate struct {
	BaseK, BaseV, Refined, State, KV, Compute, Output, Total, Model, Available, KVF16, KVQ8, KVQ4 uint64
	BitsPerElement                                                                                float64
	Ctx                                                                                           int
}

// EstimateMemory calls hexkv_estimate_memory.
func (m Model) EstimateMemory(p *SessionParams) (Estimate, Status) {
	cp := p.c()
	var o C.hexkv_estimate
	var e C.hexkv_error
	s := status(C.hexkv_estimate_memory(m.p, &cp, &o, &e), &e)
	return Estimate{
		BaseK: uint64(o.base_k), BaseV: uint64(o.base_v), Refined: uint64(o.refined), State: uint64(o.state), KV: uint64(o.kv),
		Compute: uint64(o.compute), Output: uint64(o.output), Total: uint64(o.total), Model: uint64(o.model),
		Available: uint64(o.available), KVF16: uint64(o.kv_f16), KVQ8: uint64(o.kv_q8_0), KVQ4: uint64(o.kv_q4_0),
		BitsPerElement: float64(o.bits_per_element), Ctx: int(o.n_ctx),
	}, s
}

// OpenSession calls hexkv_session_open.
func (m Model) OpenSession(p *SessionParams) (Session, Status) {
	cp := p.c()
	var s Session
	var e C.hexkv_error
	st := status(C.hexkv_session_open(m.p, &cp, &s.p, &e), &e)
	return s, st
}

// Close calls hexkv_session_close.
func (s Session) Close() { C.hexkv_session_close(s.p) }

// Cancel calls hexkv_session_cancel. It may be called while another thread decodes.
func (s Session) Cancel(cancel bool) { C.hexkv_session_cancel(s.p, C.bool(cancel)) }

// Which logits Decode keeps.
const (
	LogitsNone = C.HEXKV_LOGITS_NONE
	LogitsLast = C.HEXKV_LOGITS_LAST
	LogitsAll  = C.HEXKV_LOGITS_ALL
)

// Decode calls hexkv_decode.
func (s Session) Decode(tokens []int32, logits int) Status {
	var e C.hexkv_error
	return status(C.hexkv_decode(s.p, (*C.int32_t)(ptr(tokens)), C.size_t(len(tokens)), C.int(logits), &e), &e)
}

// Logits calls hexkv_logits. The slice is C memory, valid until the next call on s.
func (s Session) Logits(row, vocab int) ([]float32, Status) {
	var out *C.float
	var e C.hexkv_error
	st := status(C.hexkv_logits(s.p, C.int32_t(row), &out, &e), &e)
	if !st.OK() {
		return nil, st
	}
	return unsafe.Slice((*float32)(out), vocab), st
}

// Past calls hexkv_n_past.
func (s Session) Past() int { return int(C.hexkv_n_past(s.p)) }

// Ctx calls hexkv_n_ctx.
func (s Session) Ctx() int { return int(C.hexkv_n_ctx(s.p)) }

// Truncate calls hexkv_truncate.
func (s Session) Truncate(n int) (kept int, st Status) {
	var k C.int32_t
	var e C.hexkv_error
	st = status(C.hexkv_truncate(s.p, C.int32_t(n), &k, &e), &e)
	return int(k), st
}

// Stats is hexkv_stats.
type Stats struct {
	Ctx, Used                                         int
	BaseK, BaseV, Refined, State, KV, Compute, Output uint64
	BitsPerElement                                    float64
	RefinedRing, RefinedHeavy, RefinedStatic, Entries uint64
	PrefillTokens, PrefillUs, DecodeTokens, DecodeUs  uint64
	HEX                                               bool
	GPUs                                              []GPU
}

// GPU is an element of hexkv_stats.gpus.
type GPU struct {
	Name        string
	KV, Compute uint64
}

// Stats calls hexkv_get_stats.
func (s Session) Stats() (Stats, Status) {
	var o C.hexkv_stats
	var e C.hexkv_error
	st := status(C.hexkv_get_stats(s.p, &o, &e), &e)
	var gpus []GPU
	for i := range o.gpus {
		if g := &o.gpus[i]; g.name[0] != 0 {
			gpus = append(gpus, GPU{C.GoString(&g.name[0]), uint64(g.kv), uint64(g.compute)})
		}
	}
	return Stats{
		Ctx: int(o.n_ctx), Used: int(o.n_used),
		BaseK: uint64(o.base_k), BaseV: uint64(o.base_v), Refined: uint64(o.refined), State: uint64(o.state), KV: uint64(o.kv),
		Compute: uint64(o.compute), Output: uint64(o.output), BitsPerElement: float64(o.bits_per_element),
		RefinedRing: uint64(o.refined_ring), RefinedHeavy: uint64(o.refined_heavy), RefinedStatic: uint64(o.refined_static),
		Entries: uint64(o.n_entries), PrefillTokens: uint64(o.prefill_tokens), PrefillUs: uint64(o.prefill_us),
		DecodeTokens: uint64(o.decode_tokens), DecodeUs: uint64(o.decode_us), HEX: bool(o.hex), GPUs: gpus,
	}, st
}

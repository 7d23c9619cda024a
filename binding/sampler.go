package binding

// #include <stdlib.h>
// #include "hexkv.h"
import "C"

import "unsafe"

// Sampler is a hexkv_sampler handle.
type Sampler struct{ p *C.hexkv_sampler }

// SamplerParams is hexkv_sampler_params.
type SamplerParams struct {
	Temperature, TopP, MinP, Repeat, Frequency, Presence float32
	TopK, LastN                                          int32
	Seed                                                 uint32
	Grammar                                              string
}

// OpenSampler calls hexkv_sampler_open.
func (m Model) OpenSampler(p *SamplerParams) (Sampler, Status) {
	cp := C.hexkv_sampler_params{
		temperature: C.float(p.Temperature), top_p: C.float(p.TopP), min_p: C.float(p.MinP), repeat: C.float(p.Repeat),
		frequency: C.float(p.Frequency), presence: C.float(p.Presence), top_k: C.int32_t(p.TopK), last_n: C.int32_t(p.LastN),
		seed: C.uint32_t(p.Seed),
	}
	if p.Grammar != "" {
		cp.grammar = C.CString(p.Grammar)
		defer C.free(unsafe.Pointer(cp.grammar))
	}
	var g Sampler
	var e C.hexkv_error
	s := status(C.hexkv_sampler_open(m.p, &cp, &g.p, &e), &e)
	return g, s
}

// Close calls hexkv_sampler_close.
func (g Sampler) Close() { C.hexkv_sampler_close(g.p) }

// Sample calls hexkv_sample.
func (g Sampler) Sample(s Session, row int) (int32, Status) {
	var t C.int32_t
	var e C.hexkv_error
	st := status(C.hexkv_sample(g.p, s.p, C.int32_t(row), &t, &e), &e)
	return int32(t), st
}

// Accept calls hexkv_accept.
func (g Sampler) Accept(token int32, generated bool) Status {
	var e C.hexkv_error
	return status(C.hexkv_accept(g.p, C.int32_t(token), C.bool(generated), &e), &e)
}

// Reset calls hexkv_sampler_reset.
func (g Sampler) Reset() { C.hexkv_sampler_reset(g.p) }

package hexkv

import (
	"runtime"

	"github.com/hexkv/hexkv/binding"
)

// Sampling says how the next token is chosen. The zero value is greedy.
type Sampling struct {
	Temperature      float32 // 0 = greedy; at most 100
	TopK             int     // 0 = off
	TopP             float32 // 0 or 1 = off
	MinP             float32 // 0 = off; at most 1
	RepeatPenalty    float32 // 0 or 1 = off; at most 100
	FrequencyPenalty float32 // 0 = off; -100 to 100
	PresencePenalty  float32 // 0 = off; -100 to 100
	PenaltyLastN     int     // tokens that penalties see, 0 = 64
	Seed             uint32  // RandomSeed = a different one each time
	Grammar          string  // GBNF with a rule "root"; empty = none
}

// RandomSeed asks for a different seed each time.
const RandomSeed = 0xFFFFFFFF

// DefaultSampling is llama.cpp's default: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, a random seed.
func DefaultSampling() Sampling {
	return Sampling{Temperature: 0.8, TopK: 40, TopP: 0.95, MinP: 0.05, Seed: RandomSeed}
}

// Validate fails with [ErrInvalidConfig] and the allowed range. The grammar is checked by [Model.NewSampler].
func (o Sampling) Validate() error {
	for _, f := range []struct {
		name           string
		value, low, hi float64
	}{
		{"Temperature", float64(o.Temperature), 0, 100},
		{"TopK", float64(o.TopK), 0, 1 << 20},
		{"TopP", float64(o.TopP), 0, 1},
		{"MinP", float64(o.MinP), 0, 1},
		{"RepeatPenalty", float64(o.RepeatPenalty), 0, 100},
		{"FrequencyPenalty", float64(o.FrequencyPenalty), -100, 100},
		{"PresencePenalty", float64(o.PresencePenalty), -100, 100},
		{"PenaltyLastN", float64(o.PenaltyLastN), 0, 1 << 20},
	} {
		if !(f.value >= f.low && f.value <= f.hi) { // also catches NaN
			return errorf("Sampling.Validate", CodeConfig, "%s = %v is out of range; use %v to %v", f.name, f.value, f.low, f.hi)
		}
	}
	return nil
}

// penalizes reports whether tokens of the prompt matter.
func (o Sampling) penalizes() bool {
	return (o.RepeatPenalty != 0 && o.RepeatPenalty != 1) || o.FrequencyPenalty != 0 || o.PresencePenalty != 0
}

// Sampler chooses tokens from a session's logits. It belongs to one goroutine.
type Sampler struct {
	h       binding.Sampler
	closed  bool
	cleanup runtime.Cleanup
}

func newSampler(h binding.Sampler) *Sampler {
	g := &Sampler{h: h}
	g.cleanup = runtime.AddCleanup(g, binding.Sampler.Close, h)
	return g
}

// Sample chooses a token from row i of the last decode (-1 = last). It does not accept it. Fails with [ErrNoLogits], or
// with [ErrGrammar] when the grammar allows no token. Calls hexkv_sample.
func (g *Sampler) Sample(s *Session, i int) (TokenID, error) {
	const op = "Sampler.Sample"
	if g.closed {
		return 0, closedError(op, "sampler")
	}
	if err := s.lock(op); err != nil {
		return 0, err
	}
	defer s.mu.Unlock()
	t, st := g.h.Sample(s.h, i)
	runtime.KeepAlive(g)
	return TokenID(t), statusError(op, st)
}

// Accept tells penalties and grammar that t was taken; for tokens of a prompt, generated is false and the grammar does
// not see them. Fails with [ErrGrammar] for a token that the grammar does not allow. Calls hexkv_accept.
func (g *Sampler) Accept(t TokenID, generated bool) error {
	const op = "Sampler.Accept"
	if g.closed {
		return closedError(op, "sampler")
	}
	defer runtime.KeepAlive(g)
	return statusError(op, g.h.Accept(int32(t), generated))
}

// Reset forgets what was accepted. Calls hexkv_sampler_reset.
func (g *Sampler) Reset() {
	if !g.closed {
		g.h.Reset()
		runtime.KeepAlive(g)
	}
}

// Close frees the sampler. It may be called several times. Calls hexkv_sampler_close.
func (g *Sampler) Close() error {
	if !g.closed {
		g.closed = true
		g.cleanup.Stop()
		g.h.Close()
	}
	return nil
}

package hexkv

// Sampling says how the next token is chosen. The zero value is greedy.
type Sampling struct {
	Temperature      float32 // 0 = greedy; up to 100
	TopK             int     // 0 = off
	TopP             float32 // 0 or 1 = off
	MinP             float32 // 0 = off; at most 1
	RepeatPenalty    float32 // 0 or 1 = off
	FrequencyPenalty float32 // 0 = off; -2 to 2
	PresencePenalty  float32 // 0 = off; -2 to 2
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
func (o Sampling) Validate() error { panic("unimplemented") }

// Sampler chooses tokens from a session's logits. It belongs to one goroutine.
type Sampler struct{}

// Sample chooses a token from row i of the last decode (-1 = last). It does not accept it. Calls hexkv_sample.
func (g *Sampler) Sample(s *Session, i int) (TokenID, error) { panic("unimplemented") }

// Accept tells penalties and grammar that t was taken; for tokens of a prompt, generated is false and the grammar does
// not see them. Calls hexkv_accept.
func (g *Sampler) Accept(t TokenID, generated bool) error { panic("unimplemented") }

// Reset forgets what was accepted. Calls hexkv_sampler_reset.
func (g *Sampler) Reset() { panic("unimplemented") }

// Close frees the sampler. It may be called several times. Calls hexkv_sampler_close.
func (g *Sampler) Close() error { panic("unimplemented") }

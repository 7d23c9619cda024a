package hexkv

import (
	"context"
	"iter"
)

// SessionOptions says how to open a session. The zero value and nil are the trained context on a stock f16 cache.
type SessionOptions struct {
	ContextSize int    // tokens, rounded up to a multiple of 256; 0 = as trained
	BatchSize   int    // most tokens of one [Session.DecodeAll], 0 = 2048
	UBatchSize  int    // tokens computed at once, 0 = 512; smaller lets compression act within a prompt
	Threads     int    // 0 = physical cores
	AllLogits   bool   // allow [Session.DecodeAll]; costs compute memory
	Cache       Config // the zero value is stock f16
}

// Session is a KV cache over a model, with the tokens in it. It belongs to one goroutine at a time; a call that finds
// another one running fails with [ErrBusy]. Only Close may be called from elsewhere: it cancels and waits.
type Session struct{}

// Token is one step of a generation.
type Token struct {
	ID   TokenID
	Text string // complete runes only: bytes of an unfinished rune come with a later token; may be empty
	Pos  int    // position in the context
}

// GenerateOptions says how to continue a prompt. The zero value and nil are greedy, to the end of the context.
type GenerateOptions struct {
	Sampling  Sampling
	MaxTokens int  // 0 = until the end of generation or of the context
	IgnoreEOG bool // go on past the end of generation, for benchmarks
}

// Model returns the session's model.
func (s *Session) Model() *Model { panic("unimplemented") }

// Close cancels a running call, waits for it and frees the session. It may be called several times.
// Calls hexkv_session_close.
func (s *Session) Close() error { panic("unimplemented") }

// Decode appends tokens and keeps the logits of the last one. Cancelling ctx stops it within milliseconds, also inside
// a long prompt. Fails with [ErrContextFull] (the session is unchanged), with the context's error, or [ErrInternal];
// after those two the tokens that were completed stay, see [Session.Len]. Calls hexkv_decode.
func (s *Session) Decode(ctx context.Context, tokens []TokenID) error { panic("unimplemented") }

// DecodeAll is Decode that keeps the logits of all tokens, at most BatchSize of them. Needs AllLogits.
func (s *Session) DecodeAll(ctx context.Context, tokens []TokenID) error { panic("unimplemented") }

// Logits appends to dst the logits, one per vocabulary entry, of row i of the last decode: 0 to n-1 after DecodeAll,
// -1 for the last. Fails with [ErrNoLogits]. Calls hexkv_logits.
func (s *Session) Logits(dst []float32, i int) ([]float32, error) { panic("unimplemented") }

// Len returns how many tokens are in the cache. Calls hexkv_n_past.
func (s *Session) Len() int { panic("unimplemented") }

// ContextSize returns how many tokens fit. Calls hexkv_n_ctx.
func (s *Session) ContextSize() int { panic("unimplemented") }

// Tokens returns a copy of the tokens in the cache.
func (s *Session) Tokens() []TokenID { panic("unimplemented") }

// Truncate keeps the first n tokens and returns how many were kept: n, or 0 where the cache cannot drop its tail
// (recurrent models, a passed sliding window) and was cleared. Calls hexkv_truncate.
func (s *Session) Truncate(n int) (int, error) { panic("unimplemented") }

// Clear empties the cache.
func (s *Session) Clear() error { panic("unimplemented") }

// Prefill makes the cache hold exactly tokens, reusing the common prefix, and leaves the logits of the last one.
// It returns how many tokens were reused. Fails as Decode; [ErrContextFull] leaves the session unchanged.
func (s *Session) Prefill(ctx context.Context, tokens []TokenID) (reused int, err error) {
	panic("unimplemented")
}

// Generate prefills prompt (see [Session.Prefill]) and yields tokens until the model ends its reply, MaxTokens, an error
// or the end of the loop. The end-of-generation token is not yielded. An error is yielded once, as the last element:
// [ErrContextFull] when the context is full, the context's error when ctx is cancelled.
func (s *Session) Generate(ctx context.Context, prompt []TokenID, opts *GenerateOptions) iter.Seq2[Token, error] {
	panic("unimplemented")
}

// Stats returns bytes, refined entries and timings. Calls hexkv_get_stats.
func (s *Session) Stats() (Stats, error) { panic("unimplemented") }

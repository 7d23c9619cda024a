package hexkv

import (
	"context"
	"iter"
)

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

// Generate prefills prompt (see [Session.Prefill]) and yields tokens until the model ends its reply, MaxTokens, an error
// or the end of the loop. The end-of-generation token is not yielded. An error is yielded once, as the last element:
// [ErrContextFull] when the context is full, the context's error when ctx is cancelled, [ErrInvalid] when the loop's body
// changed the session. The last token that was yielded may not be in the cache yet; the next Prefill adds it. Bytes of a
// rune that the reply did not finish are in no Text; [Model.Piece] gives the bytes of one token.
func (s *Session) Generate(ctx context.Context, prompt []TokenID, opts *GenerateOptions) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		if err := s.generate(ctx, prompt, opts, nil, func(t Token) bool { return yield(t, nil) }); err != nil {
			yield(Token{}, err)
		}
	}
}

// generate calls started after the prompt and yield for every token; it returns nil when yield ends it.
func (s *Session) generate(ctx context.Context, prompt []TokenID, opts *GenerateOptions, started func(reused, decoded int),
	yield func(Token) bool) error {
	const op = "Session.Generate"
	if opts == nil {
		opts = &GenerateOptions{}
	}
	if opts.MaxTokens < 0 {
		return errorf(op, CodeConfig, "MaxTokens = %d is out of range; use 1 or more, or 0 for no limit", opts.MaxTokens)
	}
	g, err := s.model.NewSampler(opts.Sampling)
	if err != nil {
		return err
	}
	defer g.Close()
	if opts.Sampling.penalizes() {
		for _, t := range prompt[max(0, len(prompt)-max(64, opts.Sampling.PenaltyLastN)):] {
			if err := g.Accept(t, false); err != nil {
				return err
			}
		}
	}
	reused, changes, err := s.begin(ctx, op, prompt)
	if err != nil {
		return err
	}
	if started != nil {
		started(reused, len(prompt)-reused)
	}
	var hold runes
	var last []TokenID // yielded, not yet in the cache
	for n := 0; opts.MaxTokens == 0 || n < opts.MaxTokens; n++ {
		t, pos, err := s.step(ctx, op, g, last, &changes)
		if err != nil {
			return err
		}
		if !opts.IgnoreEOG && s.model.IsEOG(t) {
			return nil
		}
		piece, err := s.model.Piece(t, false)
		if err != nil {
			return err
		}
		if !yield(Token{ID: t, Text: hold.add(piece), Pos: pos}) {
			return nil
		}
		last = []TokenID{t}
	}
	return nil
}

// begin prefills the prompt.
func (s *Session) begin(ctx context.Context, op string, prompt []TokenID) (reused int, changes uint64, err error) {
	if err := s.lock(op); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	reused, err = s.prefill(ctx, op, prompt)
	return reused, s.changes, err
}

// step decodes the token before, if any, and chooses the next one.
func (s *Session) step(ctx context.Context, op string, g *Sampler, last []TokenID, changes *uint64) (t TokenID, pos int, err error) {
	if err := s.lock(op); err != nil {
		return 0, 0, err
	}
	defer s.mu.Unlock()
	if s.changes != *changes {
		return 0, 0, errorf(op, CodeInvalid, "the session was changed while it generated; leave the loop first")
	}
	if ctx.Err() != nil {
		return 0, 0, cancelled(ctx, op, "")
	}
	if len(last) > 0 {
		if err := s.decode(ctx, op, last, 1); err != nil {
			return 0, 0, err
		}
		*changes = s.changes
	}
	id, st := g.h.Sample(s.h, -1)
	if err := statusError(op, st); err != nil {
		return 0, 0, err
	}
	if err := statusError(op, g.h.Accept(id, true)); err != nil {
		return 0, 0, err
	}
	return TokenID(id), len(s.tokens), nil
}

// Package hexkv runs language models on a compressed KV cache.
//
// A [Model] is a GGUF file in memory and may be used by many goroutines. A [Session] is one conversation's KV cache over
// a model and belongs to one goroutine at a time. [Chat] keeps a conversation on a session.
//
//	m, err := hexkv.OpenModel(ctx, "model.gguf", nil)
//	if err != nil { ... }
//	defer m.Close()
//	s, err := m.NewSession(ctx, &hexkv.SessionOptions{ContextSize: 8192, Cache: hexkv.CacheBalanced})
//	if err != nil { ... }
//	defer s.Close()
//	chat := hexkv.NewChat(s, nil)
//	for tok, err := range chat.Send(ctx, "What is a KV cache?") {
//		if err != nil { ... }
//		fmt.Print(tok.Text)
//	}
//
// Contexts cancel every long call, also in the middle of a prompt. Failures are of type [*Error], which carries a [Code]
// and matches the named errors of this package and the context package with errors.Is. No failure of a call damages a
// session: it keeps the tokens that were completed, and the next call goes on from there.
//
// Sizes are bytes, lengths and positions are tokens. Each method names the call of csrc/hexkv.h behind it.
package hexkv

package hexkv

import (
	"context"
	"iter"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string // "system", "user", "assistant"
	Content string
}

// ChatOptions says how to chat. nil is [DefaultSampling] without a system message.
type ChatOptions struct {
	System    string // system message, empty = none
	Sampling  Sampling
	MaxTokens int // of one reply, 0 = no limit
}

// Chat keeps a conversation on a session. Each turn applies the model's template to all messages, keeps the prefix that
// the cache already holds and decodes only the rest. It owns the session while in use, and belongs to one goroutine.
//
// A reply that is cancelled, fails or is left by break stays in the conversation as far as it came, and the next Send
// goes on from there. A user message that got no reply at all stays too: Regenerate answers it, Send joins to it.
type Chat struct{}

// NewChat starts a conversation on s. It does not clear s; a common prefix is reused.
func NewChat(s *Session, opts *ChatOptions) *Chat { panic("unimplemented") }

// Send adds a user message and yields the reply, as [Session.Generate] does. When the conversation no longer fits in the
// context it yields [ErrContextFull] and the message is not added; [ErrInvalidUTF8] likewise.
func (c *Chat) Send(ctx context.Context, text string) iter.Seq2[Token, error] { panic("unimplemented") }

// Regenerate drops the last reply and yields another one. Fails with [ErrInvalid] before the first Send.
// If the new reply fails before its first token, the old one is kept.
func (c *Chat) Regenerate(ctx context.Context) iter.Seq2[Token, error] { panic("unimplemented") }

// Clear forgets all messages but the system message. The cached prefix stays and is reused.
func (c *Chat) Clear() { panic("unimplemented") }

// Messages returns a copy of the conversation, the system message first.
func (c *Chat) Messages() []Message { panic("unimplemented") }

// SetMessages replaces the conversation, such as one loaded from a file. Fails with [ErrInvalid] for an unknown role and
// with [ErrInvalidUTF8].
func (c *Chat) SetMessages(messages []Message) error { panic("unimplemented") }

// SetSampling changes how the next reply is sampled.
func (c *Chat) SetSampling(o Sampling) error { panic("unimplemented") }

// Session returns the session.
func (c *Chat) Session() *Session { panic("unimplemented") }

// Prompt returns the text that the next reply would start from.
func (c *Chat) Prompt() (string, error) { panic("unimplemented") }

// Reused returns how many tokens of the cache the last turn reused, and how many it decoded before its first token.
func (c *Chat) Reused() (reused, decoded int) { panic("unimplemented") }

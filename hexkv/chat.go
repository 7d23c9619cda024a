package hexkv

import (
	"context"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string // "system", "user", "assistant"
	Content string
}

// Roles of messages.
const (
	RoleSystem    = "system"
	RoleUser      = "user"
	RoleAssistant = "assistant"
)

// ChatOptions says how to chat. nil is [DefaultSampling] without a system message.
type ChatOptions struct {
	System    string // system message, empty = none (some templates then add their own)
	Sampling  Sampling
	MaxTokens int // of one reply, 0 = no limit
}

// Chat keeps a conversation on a session. Each turn applies the model's template to all messages, keeps the prefix that
// the cache already holds and decodes only the rest. It owns the session while in use, and belongs to one goroutine.
//
// A reply that is cancelled, fails or is left by break stays in the conversation as far as it came, and the next Send
// goes on from there. A user message that got no reply at all stays too: Regenerate answers it, Send joins to it.
type Chat struct {
	s        *Session
	opts     ChatOptions
	messages []Message
	reused   int
	decoded  int
}

// NewChat starts a conversation on s. It does not clear s; a common prefix is reused.
func NewChat(s *Session, opts *ChatOptions) *Chat {
	c := &Chat{s: s, opts: ChatOptions{Sampling: DefaultSampling()}}
	if opts != nil {
		c.opts = *opts
	}
	c.Clear()
	return c
}

// Send adds a user message and yields the reply, as [Session.Generate] does. When the conversation no longer fits in the
// context it yields [ErrContextFull] and the message is not added; [ErrInvalidUTF8] and [ErrTemplate] likewise.
func (c *Chat) Send(ctx context.Context, text string) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		messages := slices.Clone(c.messages)
		if last := len(messages) - 1; last >= 0 && messages[last].Role == RoleUser {
			messages[last].Content += "\n\n" + text
		} else {
			messages = append(messages, Message{RoleUser, text})
		}
		prompt, err := c.prompt("Chat.Send", messages)
		if err != nil {
			yield(Token{}, err)
			return
		}
		c.messages = messages
		c.reply(ctx, messages, prompt, yield)
	}
}

// Regenerate drops the last reply and yields another one. Fails with [ErrInvalid] before the first Send.
// If the new reply fails before its first token, the old one is kept.
func (c *Chat) Regenerate(ctx context.Context) iter.Seq2[Token, error] {
	return func(yield func(Token, error) bool) {
		const op = "Chat.Regenerate"
		n := len(c.messages)
		for n > 0 && c.messages[n-1].Role == RoleAssistant {
			n--
		}
		if n == 0 || c.messages[n-1].Role != RoleUser {
			yield(Token{}, errorf(op, CodeInvalid, "there is no message to answer yet; send one first"))
			return
		}
		messages := slices.Clone(c.messages[:n])
		prompt, err := c.prompt(op, messages)
		if err != nil {
			yield(Token{}, err)
			return
		}
		c.reply(ctx, messages, prompt, yield)
	}
}

// prompt turns messages into tokens that leave room for a reply.
func (c *Chat) prompt(op string, messages []Message) ([]TokenID, error) {
	text, err := c.s.model.ApplyTemplate(messages, true)
	if err != nil {
		return nil, err
	}
	tokens, err := c.s.model.Tokenize(text, TokenizeOptions{AddSpecial: true, ParseSpecial: true})
	if err != nil {
		return nil, err
	}
	if err := c.s.lock(op); err != nil {
		return nil, err
	}
	size := c.s.h.Ctx()
	c.s.mu.Unlock()
	if len(tokens) >= size {
		return nil, errorf(op, CodeContextFull,
			"the conversation has %d tokens, which leaves no room for a reply in a context of %d; clear it, shorten the message or open a larger context",
			len(tokens), size)
	}
	return tokens, nil
}

// reply generates, and keeps what came: messages become the conversation with the first token.
func (c *Chat) reply(ctx context.Context, messages []Message, prompt []TokenID, yield func(Token, error) bool) {
	var text strings.Builder
	came := false
	keep := func() { c.messages = append(slices.Clip(messages), Message{RoleAssistant, text.String()}) }
	defer func() { // also when the loop's body panics
		if came {
			keep()
		}
	}()
	err := c.s.generate(ctx, prompt, &GenerateOptions{Sampling: c.opts.Sampling, MaxTokens: c.opts.MaxTokens},
		func(reused, decoded int) { c.reused, c.decoded = reused, decoded },
		func(t Token) bool {
			came = true
			text.WriteString(t.Text)
			return yield(t, nil)
		})
	if came {
		keep() // before the error is seen
	}
	if err == nil {
		came = true // an empty reply is a reply
		return
	}
	yield(Token{}, err)
}

// Clear forgets all messages but the system message. The cached prefix stays and is reused.
func (c *Chat) Clear() {
	c.messages = nil
	if c.opts.System != "" {
		c.messages = []Message{{RoleSystem, c.opts.System}}
	}
}

// Messages returns a copy of the conversation, the system message first.
func (c *Chat) Messages() []Message { return slices.Clone(c.messages) }

// SetMessages replaces the conversation, such as one loaded from a file. Fails with [ErrInvalid] for an unknown role and
// with [ErrInvalidUTF8].
func (c *Chat) SetMessages(messages []Message) error {
	const op = "Chat.SetMessages"
	for i, m := range messages {
		if m.Role != RoleSystem && m.Role != RoleUser && m.Role != RoleAssistant {
			return errorf(op, CodeInvalid, "message %d has the role %q; use system, user or assistant", i, m.Role)
		}
		if !utf8.ValidString(m.Content) {
			return errorf(op, CodeUTF8, "message %d is not valid UTF-8; convert it to UTF-8", i)
		}
	}
	c.messages = slices.Clone(messages)
	return nil
}

// SetSampling changes how the next reply is sampled. Fails with [ErrInvalidConfig].
func (c *Chat) SetSampling(o Sampling) error {
	if err := o.Validate(); err != nil {
		return err
	}
	c.opts.Sampling = o
	return nil
}

// Session returns the session.
func (c *Chat) Session() *Session { return c.s }

// Prompt returns the text that the next reply would start from. Fails with [ErrTemplate].
func (c *Chat) Prompt() (string, error) { return c.s.model.ApplyTemplate(c.messages, true) }

// Reused returns how many tokens of the cache the last turn reused, and how many it decoded before its first token.
func (c *Chat) Reused() (reused, decoded int) { return c.reused, c.decoded }

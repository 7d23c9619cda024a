package hexkv

import (
	"context"
	"iter"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func needTemplate(t testing.TB) {
	t.Helper()
	if !testModel(t).Info().HasChatTemplate {
		t.Skip("the test model has no chat template")
	}
}

// collect joins a reply and returns its error.
func collect(reply iter.Seq2[Token, error]) (text string, err error) {
	for tok, e := range reply {
		text, err = text+tok.Text, e
	}
	return text, err
}

func TestChat(t *testing.T) {
	needTemplate(t)
	c := NewChat(testSession(t, SessionOptions{ContextSize: 1024}), &ChatOptions{System: "You answer in a few words.", MaxTokens: 12})
	first, err := collect(c.Send(background, "Name a colour."))
	require.NoError(t, err)
	reused, decoded := c.Reused()
	assert.Zero(t, reused)
	assert.Positive(t, decoded)
	require.Equal(t, []Message{{RoleSystem, "You answer in a few words."}, {RoleUser, "Name a colour."}, {RoleAssistant, first}}, c.Messages())

	second, err := collect(c.Send(background, "Another one."))
	require.NoError(t, err)
	reused, more := c.Reused()
	assert.GreaterOrEqual(t, reused, decoded-3, "the cached conversation is not decoded again")
	assert.Less(t, more, reused)
	require.Len(t, c.Messages(), 5)

	again, err := collect(c.Regenerate(background))
	require.NoError(t, err)
	assert.Equal(t, second, again, "greedy gives the same reply")
	require.Len(t, c.Messages(), 5)

	require.NoError(t, c.SetSampling(Sampling{Temperature: 1.2, Seed: 3}))
	require.ErrorIs(t, c.SetSampling(Sampling{TopP: 3}), ErrInvalidConfig)
	_, err = collect(c.Regenerate(background))
	require.NoError(t, err)

	c.Clear()
	assert.Equal(t, []Message{{RoleSystem, "You answer in a few words."}}, c.Messages())
	_, err = collect(c.Regenerate(background))
	require.ErrorIs(t, err, ErrInvalid)
	prompt, err := c.Prompt()
	require.NoError(t, err)
	assert.Contains(t, prompt, "You answer in a few words.")
	assert.NotNil(t, c.Session())
}

func TestChatKeepsAPartialReply(t *testing.T) {
	needTemplate(t)
	c := NewChat(testSession(t, SessionOptions{ContextSize: 1024}), &ChatOptions{})
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	part, n := "", 0
	var last error
	for tok, err := range c.Send(ctx, "Tell me a long story about a cat.") {
		part += tok.Text
		if last = err; err == nil {
			if n++; n == 5 {
				cancel()
			}
		}
	}
	require.ErrorIs(t, last, context.Canceled)
	require.Equal(t, []Message{{RoleUser, "Tell me a long story about a cat."}, {RoleAssistant, part}}, c.Messages())

	part = ""
	for tok, err := range c.Send(background, "Go on.") {
		require.NoError(t, err)
		part += tok.Text
		if len(part) > 10 {
			break
		}
	}
	require.Equal(t, Message{RoleAssistant, part}, c.Messages()[3])

	func() {
		defer func() { _ = recover() }()
		for range c.Send(background, "And on.") {
			panic("the body of the loop")
		}
	}()
	require.Len(t, c.Messages(), 6)
	_, err := collect(c.Regenerate(background))
	require.NoError(t, err, "the session is not locked")
}

func TestChatKeepsAnUnansweredMessage(t *testing.T) {
	needTemplate(t)
	c := NewChat(testSession(t, SessionOptions{ContextSize: 1024}), &ChatOptions{MaxTokens: 5})
	_, err := collect(c.Send(background, "Hello."))
	require.NoError(t, err)
	before := c.Messages()

	dead, cancel := context.WithCancel(background)
	cancel()
	_, err = collect(c.Send(dead, "Are you there?"))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, append(before, Message{RoleUser, "Are you there?"}), c.Messages())

	_, err = collect(c.Send(background, "Answer me."))
	require.NoError(t, err)
	require.Len(t, c.Messages(), 4)
	assert.Equal(t, Message{RoleUser, "Are you there?\n\nAnswer me."}, c.Messages()[2])

	kept := c.Messages()
	_, err = collect(c.Regenerate(dead))
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, kept, c.Messages(), "the old reply stays until a new one begins")
}

func TestChatRefusals(t *testing.T) {
	needTemplate(t)
	c := NewChat(testSession(t, SessionOptions{ContextSize: 256}), &ChatOptions{MaxTokens: 5})
	_, err := collect(c.Send(background, "Hello."))
	require.NoError(t, err)
	before := c.Messages()

	_, err = collect(c.Send(background, strings.Repeat("too long ", 400)))
	require.ErrorIs(t, err, ErrContextFull)
	sentence(t, err)
	assert.Equal(t, before, c.Messages())
	_, err = collect(c.Send(background, "bad \xff"))
	require.ErrorIs(t, err, ErrInvalidUTF8)
	assert.Equal(t, before, c.Messages())
	require.ErrorIs(t, c.SetMessages([]Message{{"robot", "x"}}), ErrInvalid)
	require.ErrorIs(t, c.SetMessages([]Message{{RoleUser, "\xff"}}), ErrInvalidUTF8)
	assert.Equal(t, before, c.Messages())

	_, err = collect(c.Send(background, "Still here?"))
	require.NoError(t, err)
	require.NoError(t, c.SetMessages(before))
	assert.Equal(t, before, c.Messages())
}

// A reply that fills the context stays, and says why it ended.
func TestChatFillsTheContext(t *testing.T) {
	needTemplate(t)
	c := NewChat(testSession(t, SessionOptions{ContextSize: 256}), &ChatOptions{Sampling: Sampling{Grammar: `root ::= ("word ")+ "end"`, RepeatPenalty: 1}})
	text, err := collect(c.Send(background, strings.Repeat("Say word. ", 55)))
	if err == nil {
		t.Skip("the model ended before the context was full")
	}
	require.ErrorIs(t, err, ErrContextFull)
	assert.Equal(t, Message{RoleAssistant, text}, c.Messages()[1])
}

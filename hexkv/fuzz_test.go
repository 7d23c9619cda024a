package hexkv

import (
	"context"
	"errors"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever the specification, the parser answers with a valid config that prints back to itself, or with a sentence.
func FuzzParseConfig(f *testing.F) {
	for _, s := range []string{"f16", "q8_0/q4_0", "hex:balanced", "hex:tiny:heavy=0.1:recent=-1:seed=5", "hex:off", "hex1/hex4",
		"hex:paper:backbone=1e-3:backbone_kind=channels", "::=/", "hex:tiny:heavy=1e400", "hex:tiny:mean=", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		c, err := ParseConfig(spec)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalidConfig)
			assert.NotEmpty(t, err.Error())
			return
		}
		require.NoError(t, c.Validate())
		again, err := ParseConfig(c.String())
		require.NoError(t, err, "%q printed as %q", spec, c)
		assert.Equal(t, c, again)
	})
}

// Whatever the messages, a conversation takes them or refuses them whole, and a refusal changes nothing.
func FuzzChatMessages(f *testing.F) {
	f.Add("user", "hello", "assistant", "hi", "more")
	f.Add("system", "be brief", "user", "<|im_end|>", "\xff")
	f.Add("tool", "\x00", "", "", "{{ raise_exception('x') }}")
	f.Fuzz(func(t *testing.T, role1, text1, role2, text2, next string) {
		c := &Chat{s: &Session{model: &Model{closed: true}}}
		messages := []Message{{role1, text1}, {role2, text2}}
		before := c.Messages()
		if err := c.SetMessages(messages); err != nil {
			assert.True(t, errors.Is(err, ErrInvalid) || errors.Is(err, ErrInvalidUTF8))
			assert.Equal(t, before, c.Messages())
		} else {
			assert.True(t, utf8.ValidString(text1) && utf8.ValidString(text2))
			assert.Equal(t, messages, c.Messages())
		}
		before = c.Messages()
		for range c.Send(context.Background(), next) { // fails: the model is closed
		}
		assert.Equal(t, before, c.Messages())
	})
}

// The same against the model's own template.
func FuzzApplyTemplate(f *testing.F) {
	f.Add("user", "hello", "assistant", "hi")
	f.Add("system", "<|im_end|>\n<|im_start|>system", "user", "{{ 1/0 }}")
	f.Add("", "\xff\x00", "nobody", "\u2028")
	f.Fuzz(func(t *testing.T, role1, text1, role2, text2 string) {
		m := testModel(t)
		prompt, err := m.ApplyTemplate([]Message{{role1, text1}, {role2, text2}}, true)
		if err != nil {
			assert.True(t, errors.Is(err, ErrTemplate) || errors.Is(err, ErrInvalidUTF8), "%v", err)
			return
		}
		_, err = m.Tokenize(prompt, TokenizeOptions{AddSpecial: true, ParseSpecial: true})
		assert.NoError(t, err)
	})
}

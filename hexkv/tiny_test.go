package hexkv

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// tiny writes GGUF files of random models that load in milliseconds, so that these tests need no download.
type tiny struct {
	arch     string         // "llama", "gemma3" (sliding window of 32 on five of six layers) or "mamba" (recurrent)
	template string         // chat template, empty = none
	meta     map[string]any // more metadata, or other values for it
	omit     string         // a metadata key or tensor to leave out
}

const chatML = `{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

type tensor struct {
	name string
	dims []uint64
}

// byteTokens are GPT-2's printable stand-ins for the 256 bytes.
func byteTokens() []string {
	var tokens []string
	next := rune(256)
	for b := range rune(256) {
		if (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae {
			tokens = append(tokens, string(b))
		} else {
			tokens = append(tokens, string(next))
			next++
		}
	}
	return tokens
}

func (c tiny) write(t testing.TB) string {
	t.Helper()
	tokens := append(byteTokens(), "ab", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
	types := make([]int32, len(tokens))
	for i := range types {
		types[i] = 1 // normal
	}
	for i := len(types) - 3; i < len(types); i++ {
		types[i] = 3 // control
	}
	const embd, ff = 128, 128
	vocab := uint64(len(tokens))
	a := c.arch + "."
	meta := map[string]any{
		"general.architecture": c.arch, "general.name": "tiny " + c.arch,
		a + "context_length": uint32(512), a + "embedding_length": uint32(embd), a + "feed_forward_length": uint32(ff),
		a + "block_count": uint32(2), a + "attention.layer_norm_rms_epsilon": float32(1e-5),
		"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
		"tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": []string{"a b"},
		"tokenizer.ggml.bos_token_id": uint32(vocab - 3), "tokenizer.ggml.eos_token_id": uint32(vocab - 1),
	}
	tensors := []tensor{{"token_embd.weight", []uint64{embd, vocab}}, {"output_norm.weight", []uint64{embd}}}
	block := func(i int, name string, dims ...uint64) {
		tensors = append(tensors, tensor{fmt.Sprintf("blk.%d.%s", i, name), dims})
	}
	switch c.arch {
	case "llama", "gemma3":
		n := 2
		meta[a+"attention.head_count"], meta[a+"attention.head_count_kv"] = uint32(2), uint32(1)
		meta[a+"attention.key_length"], meta[a+"attention.value_length"] = uint32(64), uint32(64)
		if c.arch == "llama" {
			meta[a+"rope.dimension_count"] = uint32(64)
		} else {
			n = 6
			meta[a+"block_count"], meta[a+"attention.sliding_window"] = uint32(n), uint32(32)
		}
		for i := range n {
			block(i, "attn_norm.weight", embd)
			block(i, "attn_q.weight", embd, 128)
			block(i, "attn_k.weight", embd, 64)
			block(i, "attn_v.weight", embd, 64)
			block(i, "attn_output.weight", 128, embd)
			block(i, "ffn_norm.weight", embd)
			block(i, "ffn_gate.weight", embd, ff)
			block(i, "ffn_up.weight", embd, ff)
			block(i, "ffn_down.weight", ff, embd)
			if c.arch == "gemma3" {
				block(i, "attn_q_norm.weight", 64)
				block(i, "attn_k_norm.weight", 64)
				block(i, "post_attention_norm.weight", embd)
				block(i, "post_ffw_norm.weight", embd)
			}
		}
	case "mamba":
		meta[a+"ssm.conv_kernel"], meta[a+"ssm.inner_size"] = uint32(4), uint32(256)
		meta[a+"ssm.state_size"], meta[a+"ssm.time_step_rank"] = uint32(16), uint32(8)
		for i := range 2 {
			block(i, "attn_norm.weight", embd)
			block(i, "ssm_in.weight", embd, 512)
			block(i, "ssm_conv1d.weight", 4, 256)
			block(i, "ssm_conv1d.bias", 256)
			block(i, "ssm_x.weight", 256, 8+32)
			block(i, "ssm_dt.weight", 8, 256)
			block(i, "ssm_dt.bias", 256)
			block(i, "ssm_a", 16, 256)
			block(i, "ssm_d", 256)
			block(i, "ssm_out.weight", 256, embd)
		}
	}
	if c.template != "" {
		meta["tokenizer.chat_template"] = c.template
	}
	for k, v := range c.meta {
		meta[k] = v
	}
	delete(meta, c.omit)

	path := filepath.Join(t.TempDir(), "tiny.gguf")
	require.NoError(t, os.WriteFile(path, gguf(meta, tensors, c.omit), 0o600))
	return path
}

// gguf encodes a file of format version 3. The tensors are random f32; norms are near one.
func gguf(meta map[string]any, tensors []tensor, omit string) []byte {
	var b bytes.Buffer
	put := func(x any) { _ = binary.Write(&b, binary.LittleEndian, x) }
	text := func(s string) {
		put(uint64(len(s)))
		b.WriteString(s)
	}
	kept := tensors[:0:0]
	for _, t := range tensors {
		if t.name != omit {
			kept = append(kept, t)
		}
	}
	b.WriteString("GGUF")
	put(uint32(3))
	put(uint64(len(kept)))
	put(uint64(len(meta)))
	for _, k := range slices.Sorted(maps.Keys(meta)) { // the same bytes every time
		text(k)
		switch v := meta[k].(type) {
		case uint32:
			put(uint32(4))
			put(v)
		case float32:
			put(uint32(6))
			put(v)
		case string:
			put(uint32(8))
			text(v)
		case []int32:
			put(uint32(9))
			put(uint32(5))
			put(uint64(len(v)))
			put(v)
		case []string:
			put(uint32(9))
			put(uint32(8))
			put(uint64(len(v)))
			for _, s := range v {
				text(s)
			}
		default:
			panic(fmt.Sprintf("%s has the type %T", k, v))
		}
	}
	size := func(t tensor) uint64 {
		n := uint64(4)
		for _, d := range t.dims {
			n *= d
		}
		return n
	}
	pad := func(n uint64) uint64 { return (n + 31) / 32 * 32 }
	offset := uint64(0)
	for _, t := range kept {
		text(t.name)
		put(uint32(len(t.dims)))
		put(t.dims)
		put(uint32(0)) // f32
		put(offset)
		offset += pad(size(t))
	}
	b.Write(make([]byte, pad(uint64(b.Len()))-uint64(b.Len())))
	r := rand.New(rand.NewPCG(1, 2))
	for _, t := range kept {
		data := make([]float32, pad(size(t))/4)
		for i := range data {
			data[i] = float32(r.NormFloat64()) * 0.1
			if strings.HasSuffix(t.name, "norm.weight") {
				data[i] += 1
			}
			if strings.HasSuffix(t.name, "ssm_a") {
				data[i] -= 1 // states decay
			}
		}
		put(data)
	}
	return b.Bytes()
}

// open loads the tiny model for the test's time.
func (c tiny) open(t testing.TB) *Model {
	t.Helper()
	m, err := OpenModel(context.Background(), c.write(t), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	return m
}

func (c tiny) session(t testing.TB, opts SessionOptions) *Session {
	t.Helper()
	opts.Threads = 1
	s, err := c.open(t).NewSession(context.Background(), &opts)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestTinyModel(t *testing.T) {
	m := tiny{arch: "llama", template: chatML}.open(t)
	i := m.Info()
	assert.Equal(t, "tiny llama", i.Name)
	assert.Equal(t, []int{2, 2, 1, 64, 64, 128, 512, 260, 0},
		[]int{i.Layers, i.Heads, i.KVHeads, i.HeadSizeK, i.HeadSizeV, i.Embedding, i.TrainedContext, i.Vocab, i.SlidingWindow})
	assert.True(t, i.HasChatTemplate)
	assert.False(t, i.Recurrent)

	s, err := m.NewSession(background, nil)
	require.NoError(t, err)
	assert.Equal(t, 512, s.ContextSize(), "as trained")
	require.NoError(t, s.Close())

	for _, text := range []string{"", "abc", "héllo €😀\x00\n", "<|im_end|>"} {
		tokens, err := m.Tokenize(text, TokenizeOptions{})
		require.NoError(t, err)
		got, err := m.Detokenize(tokens)
		require.NoError(t, err)
		assert.Equal(t, text, got)
	}
	end, err := m.Tokenize("<|im_end|>", TokenizeOptions{ParseSpecial: true})
	require.NoError(t, err)
	require.Len(t, end, 1)
	assert.True(t, m.IsEOG(end[0]))
	piece, err := m.Piece(end[0], true)
	require.NoError(t, err)
	assert.Equal(t, "<|im_end|>", string(piece))
	piece, err = m.Piece(end[0], false)
	require.NoError(t, err)
	assert.Empty(t, piece)

	prompt, err := m.ApplyTemplate([]Message{{RoleSystem, "be brief"}, {RoleUser, "hi"}}, true)
	require.NoError(t, err)
	assert.Equal(t, "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", prompt)
	long := strings.Repeat("x", 1<<20)
	prompt, err = m.ApplyTemplate([]Message{{RoleUser, long}}, false)
	require.NoError(t, err)
	assert.Contains(t, prompt, long)
}

// A random model says random bytes: the streamed text is valid all the same, and the whole machinery runs.
func TestTinyGenerate(t *testing.T) {
	for _, arch := range []string{"llama", "gemma3", "mamba"} {
		s := tiny{arch: arch, template: chatML}.session(t, SessionOptions{ContextSize: 256, UBatchSize: 16})
		prompt, err := s.Model().Tokenize("a prompt of some length, for several ubatches", TokenizeOptions{})
		require.NoError(t, err)
		opts := &GenerateOptions{MaxTokens: 40, IgnoreEOG: true, Sampling: Sampling{Temperature: 1, Seed: 1}}
		var text string
		for tok, err := range s.Generate(background, prompt, opts) {
			require.NoError(t, err, arch)
			text += tok.Text
		}
		assert.Equal(t, strings.ToValidUTF8(text, "?"), text, arch)
		assert.Equal(t, len(prompt)+39, s.Len(), arch)

		c := NewChat(s, &ChatOptions{MaxTokens: 5, Sampling: Sampling{Temperature: 1, Seed: 2}})
		for range 3 {
			_, err := collect(c.Send(background, "hi"))
			require.NoError(t, err, arch)
			_, err = collect(c.Regenerate(background))
			require.NoError(t, err, arch)
		}
	}
}

// Every kind of cache runs, on plain attention and with sliding windows, and its bytes are those of the estimate.
func TestTinyCaches(t *testing.T) {
	specs := []string{"f16", "f32", "bf16", "q8_0", "q4_0", "q5_1/iq4_nl",
		"hex1/hex4", "hex:quality", "hex:tiny", "hex:tiny:refine=none", "hex:balanced:recent=0:sink=0:heavy=0",
		"hex:compact:refine=q8_0:heavy=1", "hex:tiny:backbone=0.5:heavy=0", "hex:tiny:mean=0:backbone=0.5:backbone_kind=random",
		"hex:tiny:backbone=1:backbone_kind=strided"}
	for _, arch := range []string{"llama", "gemma3"} {
		m := tiny{arch: arch}.open(t)
		tokens, err := m.Tokenize(strings.Repeat("one text for all the caches. ", 14), TokenizeOptions{})
		require.NoError(t, err)
		for _, spec := range specs {
			cache, err := ParseConfig(spec)
			require.NoError(t, err, spec)
			opts := &SessionOptions{ContextSize: 512, UBatchSize: 64, Threads: 1, Cache: cache}
			e, err := m.Estimate(opts)
			require.NoError(t, err, spec)
			s, err := m.NewSession(background, opts)
			require.NoError(t, err, spec)
			require.NoError(t, s.Decode(background, tokens), spec)
			kept, err := s.Truncate(len(tokens) - 3)
			require.NoError(t, err, spec)
			assert.Equal(t, len(tokens)-3, kept, spec)
			require.NoError(t, s.Decode(background, tokens[kept:kept+1]), spec)
			for _, x := range lastLogits(t, s) {
				require.False(t, math.IsNaN(float64(x)) || math.IsInf(float64(x), 0), spec)
			}
			st, err := s.Stats()
			require.NoError(t, err)
			assert.Equal(t, e.KV, st.KV, "%s %s", arch, spec)
			assert.Equal(t, st.KV, st.BaseK+st.BaseV+st.Refined+st.State, spec)
			assert.InEpsilon(t, e.BitsPerElement, st.BitsPerElement, 0.01, "%s %s", arch, spec)
			require.NoError(t, s.Close())
		}
	}
}

// Where the cache cannot drop a tail, Truncate says so and Prefill starts again, with the same logits.
func TestTruncateWithoutATail(t *testing.T) {
	for _, arch := range []string{"gemma3", "mamba"} {
		s := tiny{arch: arch}.session(t, SessionOptions{ContextSize: 512, UBatchSize: 32})
		tokens, err := s.Model().Tokenize(strings.Repeat("the window slides on and on. ", 12), TokenizeOptions{})
		require.NoError(t, err)
		require.Greater(t, len(tokens), 300)
		_, err = s.Prefill(background, tokens[:100])
		require.NoError(t, err)
		want := lastLogits(t, s)
		require.NoError(t, s.Decode(background, tokens[100:]))

		kept, err := s.Truncate(50)
		require.NoError(t, err)
		assert.Zero(t, kept, arch)
		assert.Zero(t, s.Len(), arch)
		reused, err := s.Prefill(background, tokens[:100])
		require.NoError(t, err)
		assert.Zero(t, reused, arch)
		assert.Less(t, maxDiff(want, lastLogits(t, s)), 1e-4, arch)
	}
	// Inside the window a tail can go.
	s := tiny{arch: "gemma3"}.session(t, SessionOptions{ContextSize: 512, UBatchSize: 16})
	tokens, err := s.Model().Tokenize("short enough to fit", TokenizeOptions{})
	require.NoError(t, err)
	require.NoError(t, s.Decode(background, tokens))
	kept, err := s.Truncate(5)
	require.NoError(t, err)
	assert.Equal(t, 5, kept)
}

func TestTinyChatTemplates(t *testing.T) {
	for name, c := range map[string]struct{ template, part string }{
		"none":      {"", "no chat template"},
		"syntax":    {"{% for m in messages %}", ""},
		"refuses":   {"{{ raise_exception('roles must alternate') }}", "roles must alternate"},
		"undefined": {"{{ messages[0].content.nothing.at.all() }}", ""},
		"not jinja": {"{%%}{{{{", ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := tiny{arch: "llama", template: c.template}.open(t)
			_, err := m.ApplyTemplate([]Message{{RoleUser, "hi"}}, true)
			require.ErrorIs(t, err, ErrTemplate)
			assert.Contains(t, err.Error(), c.part)
			s, err := m.NewSession(background, &SessionOptions{ContextSize: 256, Threads: 1})
			require.NoError(t, err)
			defer s.Close()
			chat := NewChat(s, nil)
			_, err = collect(chat.Send(background, "hi"))
			require.ErrorIs(t, err, ErrTemplate)
			assert.Empty(t, chat.Messages())
		})
	}
	m := tiny{arch: "llama", template: chatML}.open(t)
	_, err := m.ApplyTemplate(nil, true)
	require.ErrorIs(t, err, ErrTemplate)
	_, err = m.ApplyTemplate([]Message{{"us\x00er", "x"}}, true)
	require.ErrorIs(t, err, ErrTemplate)
}

// Whole GGUF files that make no model: llama.cpp's reason is in the sentence.
func TestBrokenModels(t *testing.T) {
	for part, c := range map[string]tiny{
		"llama.block_count":   {arch: "llama", omit: "llama.block_count"},
		"token_embd.weight":   {arch: "llama", omit: "token_embd.weight"},
		"blk.1.attn_q.weight": {arch: "llama", omit: "blk.1.attn_q.weight"},
		"nonsense":            {arch: "nonsense"},
		"context_length":      {arch: "llama", omit: "llama.context_length"},
		"architecture: ''":    {arch: "llama", omit: "general.architecture"},
		"attn_q":              {arch: "llama", meta: map[string]any{"llama.attention.head_count": uint32(7)}},
		"tokenizer":           {arch: "llama", meta: map[string]any{"tokenizer.ggml.model": "nonsense"}},
		"merges":              {arch: "llama", omit: "tokenizer.ggml.merges"},
		"":                    {arch: "llama", meta: map[string]any{"llama.embedding_length": uint32(1 << 30)}},
	} {
		path := c.write(t)
		_, err := OpenModel(background, path, nil)
		require.ErrorIs(t, err, ErrModel, part)
		assert.Contains(t, err.Error(), part)
		assert.Contains(t, err.Error(), path)
	}
}

// Any damage to a file's header gives an error or a model, never a crash.
func FuzzModelFile(f *testing.F) {
	data, err := os.ReadFile(tiny{arch: "llama"}.write(f))
	require.NoError(f, err)
	f.Add(uint32(4), []byte{9})
	f.Add(uint32(8), []byte{255, 255, 255, 255, 255, 255, 255, 127})
	f.Add(uint32(16), []byte{255})
	f.Add(uint32(60), []byte("xxxx"))
	f.Fuzz(func(t *testing.T, at uint32, bytes []byte) {
		header := uint32(9000) // metadata and tensor table
		damaged := append([]byte(nil), data...)
		copy(damaged[at%header:], bytes)
		path := filepath.Join(t.TempDir(), "damaged.gguf")
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		m, err := OpenModel(background, path, nil)
		if err != nil {
			assert.NotEmpty(t, err.Error())
			return
		}
		m.Close()
	})
}

package hexkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/hexkv/hexkv/hexkv"
)

const model = "../build/models/SmolLM2-135M-Instruct.Q4_1.gguf"

// Chat with a model on a compressed cache.
func Example() {
	if _, err := os.Stat(model); err != nil {
		return // the examples need the default model
	}
	ctx := context.Background()
	m, err := hexkv.OpenModel(ctx, model, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	s, err := m.NewSession(ctx, &hexkv.SessionOptions{ContextSize: 4096, Cache: hexkv.CacheBalanced})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()

	chat := hexkv.NewChat(s, nil)
	for tok, err := range chat.Send(ctx, "What is a cache?") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Print(tok.Text)
	}
	stats, err := s.Stats()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("\n%d bytes of cache, %.2f bits per element\n", stats.KV, stats.BitsPerElement)
}

// What a context would take, before anything is allocated.
func ExampleModel_Estimate() {
	if _, err := os.Stat(model); err != nil {
		return
	}
	m, err := hexkv.OpenModel(context.Background(), model, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	e, err := m.Estimate(&hexkv.SessionOptions{ContextSize: 8192, Cache: hexkv.CacheQ8_0})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("cache %d bytes, %.0f %% of f16\n", e.KV, 100*float64(e.KV)/float64(e.KVF16))
}

// Continue a text, with a grammar that the answer must follow.
func ExampleSession_Generate() {
	if _, err := os.Stat(model); err != nil {
		return
	}
	ctx := context.Background()
	m, err := hexkv.OpenModel(ctx, model, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	s, err := m.NewSession(ctx, &hexkv.SessionOptions{ContextSize: 512})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	prompt, err := m.Tokenize("Is water wet? Answer:", hexkv.TokenizeOptions{AddSpecial: true})
	if err != nil {
		log.Fatal(err)
	}
	opts := &hexkv.GenerateOptions{Sampling: hexkv.Sampling{Grammar: `root ::= " yes" | " no"`}}
	for tok, err := range s.Generate(ctx, prompt, opts) {
		switch {
		case errors.Is(err, hexkv.ErrContextFull):
			return
		case err != nil:
			log.Fatal(err)
		}
		fmt.Print(tok.Text)
	}
}

// A specification is what users write on the command line.
func ExampleParseConfig() {
	c, err := hexkv.ParseConfig("hex:balanced:heavy=0.1")
	fmt.Println(c, c.IsHEX(), err)

	_, err = hexkv.ParseConfig("hex:off:heavy=0.1")
	fmt.Println(errors.Is(err, hexkv.ErrInvalidConfig), err)
	// Output:
	// hex:balanced:heavy=0.1 true <nil>
	// true heavy is set but HEX is off; choose a preset such as balanced, or leave heavy out
}

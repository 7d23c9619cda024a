// Command hexrun chats with a GGUF model on a compressed KV cache, and compares caches side by side.
package main

import (
	"context"
	"os"
)

func main() {
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, interrupts: newInterrupts(os.Exit)}
	e.interrupts.listen()
	os.Exit(run(context.Background(), e, os.Args[1:]))
}

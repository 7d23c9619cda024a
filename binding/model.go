package binding

// #include <stdlib.h>
// #include "hexkv.h"
// bool hexkvGoProgress(float done, void * user); // in callbacks.go
// static inline hexkv_status hexkv_go_model_load(const char * path, hexkv_model_params p, void * user, hexkv_model ** out, hexkv_error * e) {
//     p.progress = hexkvGoProgress;
//     p.user     = user;
//     return hexkv_model_load(path, &p, out, e);
// }
import "C"

import (
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// Model is a hexkv_model handle.
type Model struct{ p *C.hexkv_model }

// ModelParams is hexkv_model_params.
type ModelParams struct {
	GPULayers int32
	NoMmap    bool
	Progress  func(done float32) bool // false cancels; must not be nil
}

// ModelInfo is hexkv_model_info.
type ModelInfo struct {
	Name, Arch, Desc                                                                      string
	Params, Bytes                                                                         uint64
	Layers, Heads, KVHeads, HeadK, HeadV, Embedding, TrainedContext, Vocab, SlidingWindow int
	ChatTemplate, Recurrent, HEX                                                          bool
	HEXReason                                                                             string
}

// LoadModel calls hexkv_model_load.
func LoadModel(path string, p ModelParams) (Model, Status) {
	cs := C.CString(path)
	defer C.free(unsafe.Pointer(cs))
	handle := cgo.NewHandle(p.Progress)
	defer handle.Delete()
	cp := C.hexkv_model_params{n_gpu_layers: C.int32_t(p.GPULayers), no_mmap: C.bool(p.NoMmap)}
	var m Model
	var e C.hexkv_error
	// C keeps the handle's address only during the call.
	s := status(C.hexkv_go_model_load(cs, cp, unsafe.Pointer(&handle), &m.p, &e), &e)
	return m, s
}

// Close calls hexkv_model_close.
func (m Model) Close() { C.hexkv_model_close(m.p) }

// Info calls hexkv_model_get_info.
func (m Model) Info() ModelInfo {
	var i C.hexkv_model_info
	C.hexkv_model_get_info(m.p, &i)
	return ModelInfo{
		Name: text(&i.name), Arch: text(&i.arch), Desc: text(&i.desc),
		Params: uint64(i.n_params), Bytes: uint64(i.n_bytes),
		Layers: int(i.n_layer), Heads: int(i.n_head), KVHeads: int(i.n_head_kv), HeadK: int(i.head_k), HeadV: int(i.head_v),
		Embedding: int(i.n_embd), TrainedContext: int(i.n_ctx_train), Vocab: int(i.n_vocab), SlidingWindow: int(i.n_swa),
		ChatTemplate: bool(i.chat_template), Recurrent: bool(i.recurrent), HEX: bool(i.hex), HEXReason: text(&i.hex_reason),
	}
}

// Tokenize calls hexkv_tokenize. n is the number of tokens; when it is more than len(tokens), call again with more.
func (m Model) Tokenize(s string, addSpecial, parseSpecial bool, tokens []int32) (n int, st Status) {
	var cn C.size_t
	var e C.hexkv_error
	code := C.hexkv_tokenize(m.p, (*C.char)(unsafe.Pointer(unsafe.StringData(s))), C.size_t(len(s)), C.bool(addSpecial),
		C.bool(parseSpecial), (*C.int32_t)(ptr(tokens)), C.size_t(len(tokens)), &cn, &e)
	return int(cn), status(code, &e)
}

// TokenPiece calls hexkv_token_piece. n is the number of bytes; when it is more than len(buf), call again with more.
func (m Model) TokenPiece(token int32, special bool, buf []byte) (n int, st Status) {
	var cn C.size_t
	code := C.hexkv_token_piece(m.p, C.int32_t(token), C.bool(special), (*C.char)(unsafe.Pointer(ptr(buf))), C.size_t(len(buf)), &cn)
	return int(cn), status(code, nil)
}

// IsEOG calls hexkv_token_is_eog.
func (m Model) IsEOG(token int32) bool { return bool(C.hexkv_token_is_eog(m.p, C.int32_t(token))) }

// Message is hexkv_message.
type Message struct{ Role, Content string }

// ApplyTemplate calls hexkv_chat_apply. n is the number of bytes; when it is more than len(buf), call again with more.
func (m Model) ApplyTemplate(msgs []Message, addAssistant bool, buf []byte) (n int, st Status) {
	var pin runtime.Pinner
	defer pin.Unpin()
	cms := make([]C.hexkv_message, len(msgs))
	for i, msg := range msgs {
		role := append([]byte(msg.Role), 0)
		pin.Pin(&role[0])
		cms[i].role = (*C.char)(unsafe.Pointer(&role[0]))
		if len(msg.Content) > 0 {
			content := unsafe.StringData(msg.Content)
			pin.Pin(content)
			cms[i].content = (*C.char)(unsafe.Pointer(content))
			cms[i].content_len = C.size_t(len(msg.Content))
		}
	}
	var cn C.size_t
	var e C.hexkv_error
	code := C.hexkv_chat_apply(m.p, ptr(cms), C.size_t(len(cms)), C.bool(addAssistant), (*C.char)(unsafe.Pointer(ptr(buf))),
		C.size_t(len(buf)), &cn, &e)
	return int(cn), status(code, &e)
}

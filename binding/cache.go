package binding

// #include <stdlib.h>
// #include "hexkv.h"
import "C"

import "unsafe"

// Cache is hexkv_cache, sentinels and all.
type Cache struct {
	Preset, TypeK, TypeV, Refine, BackboneKind string
	Sink, Recent                               int32
	Heavy, Backbone                            float32
	Seed                                       int64
	Mean, HalfLife                             int32
	Unbias                                     float32
}

// Sentinels of Cache's numbers.
const (
	UnsetRecent = -2
	Unset       = -1 // all others
)

// c converts; a name that does not fit becomes one that no check accepts.
func (c *Cache) c() C.hexkv_cache {
	var out C.hexkv_cache
	for _, f := range []struct {
		field []C.char
		text  string
	}{
		{out.preset[:], c.Preset}, {out.type_k[:], c.TypeK}, {out.type_v[:], c.TypeV},
		{out.refine[:], c.Refine}, {out.backbone_kind[:], c.BackboneKind},
	} {
		if !setText(f.field, f.text) {
			setText(f.field, f.text[:min(len(f.text), 12)]+"...")
		}
	}
	out.sink, out.recent = C.int32_t(c.Sink), C.int32_t(c.Recent)
	out.heavy, out.backbone = C.float(c.Heavy), C.float(c.Backbone)
	out.seed = C.int64_t(c.Seed)
	out.mean, out.half_life = C.int32_t(c.Mean), C.int32_t(c.HalfLife)
	out.unbias = C.float(c.Unbias)
	return out
}

func cacheOf(c *C.hexkv_cache) Cache {
	return Cache{
		Preset: text(&c.preset), TypeK: text(&c.type_k), TypeV: text(&c.type_v),
		Refine: text(&c.refine), BackboneKind: text(&c.backbone_kind),
		Sink: int32(c.sink), Recent: int32(c.recent), Heavy: float32(c.heavy), Backbone: float32(c.backbone),
		Seed: int64(c.seed), Mean: int32(c.mean), HalfLife: int32(c.half_life), Unbias: float32(c.unbias),
	}
}

// ParseCache calls hexkv_cache_parse.
func ParseCache(spec string) (Cache, Status) {
	cs := C.CString(spec)
	defer C.free(unsafe.Pointer(cs))
	var c C.hexkv_cache
	var e C.hexkv_error
	s := status(C.hexkv_cache_parse(cs, &c, &e), &e)
	return cacheOf(&c), s
}

// FormatCache calls hexkv_cache_format.
func FormatCache(c *Cache) (string, Status) {
	cc := c.c()
	var buf [512]C.char
	s := status(C.hexkv_cache_format(&cc, &buf[0], C.size_t(len(buf))), nil)
	return C.GoString(&buf[0]), s
}

// CheckCache calls hexkv_cache_check.
func CheckCache(c *Cache) Status {
	cc := c.c()
	var e C.hexkv_error
	return status(C.hexkv_cache_check(&cc, &e), &e)
}

// PresetName calls hexkv_preset_name; empty after the last.
func PresetName(i int) string {
	return C.GoString(C.hexkv_preset_name(C.int(i)))
}

// Backbone is hexkv_backbone.
type Backbone struct{ c C.hexkv_backbone }

// MakeBackbone calls hexkv_backbone_make.
func MakeBackbone(kind string, seed uint32, pairs, degree, cells int32) (*Backbone, Status) {
	cs := C.CString(kind)
	defer C.free(unsafe.Pointer(cs))
	b := new(Backbone)
	var e C.hexkv_error
	s := status(C.hexkv_backbone_make(cs, C.uint32_t(seed), C.int32_t(pairs), C.int32_t(degree), C.int32_t(cells), &b.c, &e), &e)
	return b, s
}

// Fields returns the plain values.
func (b *Backbone) Fields() (pairs, degree, period int, seed uint32, sigma2, ramanujan, factor float64) {
	return int(b.c.n_pairs), int(b.c.degree), int(b.c.period), uint32(b.c.seed),
		float64(b.c.sigma2), float64(b.c.ramanujan), float64(b.c.factor)
}

// Cell calls hexkv_backbone_cell.
func (b *Backbone) Cell(pair, slot int32) int32 {
	return int32(C.hexkv_backbone_cell(&b.c, C.int32_t(pair), C.int32_t(slot)))
}

/* Reads a JPEG file with libjpeg-turbo, as OpenCV's imread does, and keeps what the library warns of.

   TurboJPEG's own interface tells only the first warning of a picture, and none apart from an error. Here every kind of
   warning is kept, and whether the data of the picture end before the picture does. It is in C because libjpeg leaves
   an error by longjmp, which must not pass through frames of Rust. */

#include <stddef.h>
#include <stdio.h>
#include <setjmp.h>
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>

/* Kinds of warnings that are kept of a picture. Both numbers stand in jpeg.rs, too. */
#define KINDS 4
#define TEXT JMSG_LENGTH_MAX

/* Rows that are read at once: libjpeg gives up to 16. */
#define ROWS 16

struct dovetail_jpeg {
  unsigned int width, height;
  /* Bytes of a pixel: 3 (RGB), or 4 (inks). */
  unsigned int channels;
  /* Kinds of warnings in `warnings`. */
  unsigned int kinds;
  /* Not 0: the data end before the picture does. */
  unsigned int ends_early;
  char warnings[KINDS][TEXT];
  char error[TEXT];
};

struct manager {
  /* First: libjpeg knows the manager by it. */
  struct jpeg_error_mgr pub;
  struct jpeg_progress_mgr progress;
  jmp_buf back;
  struct dovetail_jpeg *told;
  int codes[KINDS];
  unsigned int max_scans;
  /* Components of which there are data, a bit each. */
  unsigned int seen;
  /* The file ended. */
  int no_end_marker;
  /* The data of a scan ended before the scan. */
  int starved;
};

static void on_error(j_common_ptr info)
{
  struct manager *manager = (struct manager *)info->err;

  (*info->err->format_message)(info, manager->told->error);
  longjmp(manager->back, 1);
}

/* Whether the decoder stands before a marker at which the data of a scan go on: a restart marker. */
static int goes_on(j_decompress_ptr info)
{
  return info->restart_interval != 0 && info->unread_marker >= JPEG_RST0 && info->unread_marker <= JPEG_RST0 + 7;
}

static void on_message(j_common_ptr info, int level)
{
  struct manager *manager = (struct manager *)info->err;
  struct dovetail_jpeg *told = manager->told;
  int code = info->err->msg_code;
  unsigned int i;

  if (level >= 0) return; /* It tells how it gets on. */
  if (code == JWRN_JPEG_EOF) manager->no_end_marker = 1;
  /* A decoder that wants more data stands before the next marker, and so does one that looks for a restart marker. */
  if ((code == JWRN_HIT_MARKER || code == JWRN_MUST_RESYNC) && !goes_on((j_decompress_ptr)info)) manager->starved = 1;
  for (i = 0; i < told->kinds; i++)
    if (manager->codes[i] == code) return;
  if (told->kinds == KINDS) return;
  manager->codes[told->kinds] = code;
  (*info->err->format_message)(info, told->warnings[told->kinds++]);
}

/* Called before each row of blocks. */
static void on_progress(j_common_ptr common)
{
  j_decompress_ptr info = (j_decompress_ptr)common;
  struct manager *manager = (struct manager *)info->err;
  int i;

  for (i = 0; i < info->comps_in_scan; i++) manager->seen |= 1u << info->cur_comp_info[i]->component_index;
  if (info->input_scan_number > (int)manager->max_scans) {
    snprintf(manager->told->error, TEXT, "it has more than %u scans", manager->max_scans);
    longjmp(manager->back, 1);
  }
}

/* Whether data are missing of a picture whose every scan is whole: a component, or bits of its coefficients. */
static int lacks_scans(j_decompress_ptr info, const struct manager *manager)
{
  int component, coefficient;

  for (component = 0; component < info->num_components; component++) {
    if (!(manager->seen >> component & 1)) return 1;
    for (coefficient = 0; info->progressive_mode && info->coef_bits && coefficient < DCTSIZE2; coefficient++)
      if (info->coef_bits[component][coefficient] != 0) return 1;
  }
  return 0;
}

/* Reads the header, and where `pixels` is not NULL the picture, which has `room` bytes. Not 0: `told->error` says why
   not. */
int dovetail_read_jpeg(const unsigned char *file, size_t length, unsigned int max_scans, unsigned char *pixels,
                       size_t room, struct dovetail_jpeg *told);

int dovetail_read_jpeg(const unsigned char *file, size_t length, unsigned int max_scans, unsigned char *pixels,
                       size_t room, struct dovetail_jpeg *told)
{
  struct jpeg_decompress_struct info;
  struct manager manager;
  JSAMPROW rows[ROWS];
  size_t row;
  int i, lacks;

  memset(told, 0, sizeof(*told));
  memset(&info, 0, sizeof(info));
  memset(&manager, 0, sizeof(manager));
  manager.told = told;
  manager.max_scans = max_scans;
  info.err = jpeg_std_error(&manager.pub);
  manager.pub.error_exit = on_error;
  manager.pub.emit_message = on_message;
  manager.progress.progress_monitor = on_progress;
  if (setjmp(manager.back)) {
    jpeg_destroy_decompress(&info);
    return 1;
  }
  jpeg_create_decompress(&info);
  info.progress = &manager.progress;
  jpeg_mem_src(&info, file, (unsigned long)length);
  jpeg_read_header(&info, TRUE);
  told->width = info.image_width;
  told->height = info.image_height;
  told->channels = info.num_components == 4 ? 4 : 3;
  if (pixels == NULL) {
    jpeg_destroy_decompress(&info);
    return 0;
  }
  info.out_color_space = told->channels == 4 ? JCS_CMYK : JCS_EXT_RGB;
  jpeg_start_decompress(&info);
  row = (size_t)info.output_width * (size_t)info.output_components;
  if (row * info.output_height != room) {
    snprintf(told->error, TEXT, "it is not as large as its header says");
    jpeg_destroy_decompress(&info);
    return 1;
  }
  while (info.output_scanline < info.output_height) {
    for (i = 0; i < ROWS && info.output_scanline + i < info.output_height; i++)
      rows[i] = pixels + row * (info.output_scanline + (size_t)i);
    jpeg_read_scanlines(&info, rows, (JDIMENSION)i);
  }
  lacks = lacks_scans(&info, &manager);
  jpeg_finish_decompress(&info);
  /* An arithmetic decoder makes up what is missing and does not say so. */
  told->ends_early = manager.starved || (manager.no_end_marker && (lacks || info.arith_code));
  jpeg_destroy_decompress(&info);
  return 0;
}
